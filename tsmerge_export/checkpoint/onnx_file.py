"""ONNX files: external data from the model's own folder only, sizes capped."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import inliner

from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.checkpoint.onnx_checks import check_model
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError, first_line
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.domain import DOMAIN
from tsmerge_export.untrusted.onnx_scan import STANDARD, check_calls, scan

_RUNTIME_DOMAINS = ("com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")


def read_onnx(path: Path) -> onnx.ModelProto:
    """A model with its local functions inlined, standard operators only, without empty names at the ends of inputs.

    What spreads nodes over devices is left out, too. Its weights are as :mod:`.onnx_weights` says.

    Raises:
        UsageError: missing, truncated, above the size cap, or with external data that is missing or lies elsewhere.
        UnsupportedError: operators outside the ONNX standard, or weights in a sparse format.
    """
    try:
        check_model_bytes(str(path), path.stat().st_size)
        check_calls(scan(path), str(path))
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except TsmergeError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # protobuf and onnx raise errors of several unrelated classes
        raise UsageError(f"{path}: truncated or not an ONNX file") from None
    if not model.graph.node:
        raise UsageError(f"{path}: truncated or not an ONNX file (it has no operators)")
    check_model(model, str(path))
    check_model_bytes(str(path), onnx_weights.external_bytes(model, path))
    model = onnx_weights.read(path, model)
    _check_operators(model, path)
    plain = _without_functions(model, path) if model.functions else model
    _leave_out_what_says_nothing(plain)
    return plain


def _leave_out_what_says_nothing(model: onnx.ModelProto) -> None:
    """Take out empty names at the ends of inputs, and where nodes would run if they were spread over devices.

    ONNX Runtime 1.32 crashes over a LayerNormalization whose bias is left out by an empty name.
    """
    del model.configuration[:]
    for graph in onnx_weights.graphs(model.graph):
        for node in graph.node:
            del node.device_configurations[:]
            while node.input and not node.input[-1]:
                del node.input[-1]


def _without_functions(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    try:
        plain = inliner.inline_local_functions(model)
    except Exception as error:  # the inliner has errors of its own
        raise UnsupportedError(f"{path}: its functions cannot be written out: {first_line(error)}") from None
    check_model(plain, str(path))
    return plain


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    if any(graph.sparse_initializer for graph in onnx_weights.graphs(model.graph)):
        raise UnsupportedError(f"{path}: sparse weights are not supported")
    if any(entry.domain == DOMAIN for entry in model.opset_import):  # inlined or not
        raise UnsupportedError(f"{path}: merges tokens already; give the unmerged model")
    local = {(function.domain, function.name) for function in model.functions}
    nodes = [node for graph in onnx_weights.graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    foreign = sorted(
        {
            f"{node.domain}::{node.op_type}"
            for node in nodes
            if node.domain not in STANDARD and (node.domain, node.op_type) not in local
        }
    )
    if not foreign:
        return
    what = f"{path}: holds operators outside the ONNX standard ({', '.join(foreign[:4])})"
    if any(name.partition("::")[0] in _RUNTIME_DOMAINS for name in foreign):
        raise UnsupportedError(
            f"{what}: the file was optimised for one runtime; give the plain export it was made from"
        )
    raise UnsupportedError(what)
