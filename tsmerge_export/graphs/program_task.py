"""What the process does in which an exported program is opened; see :mod:`.program`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx import inliner

from tsmerge_export.checkpoint.program_file import read_program
from tsmerge_export.compile.onnx_export import quiet_exporter
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.onnx_model import weights as onnx_weights

_opened: dict[str, tuple[Any, list[str], list[str]]] = {}


def convert(path: str, folder: str, opset: int) -> dict[str, Any]:
    """Write ``model.onnx`` into ``folder``, standard operators only.

    Raises:
        UsageError, UnsupportedError: as :func:`.program.onnx_of_program`.
    """
    program = read_program(Path(path))
    try:
        with quiet_exporter(), torch.no_grad():
            exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
    except Exception as error:  # the exporter raises many types; each means that this program does not export
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(f"{path}: does not export to ONNX: {reason}") from error
    if exported is None:
        raise UnsupportedError(f"{path}: does not export to ONNX")
    try:
        onnx_weights.to_files(exported.model, Path(folder))
        model = ir.to_proto(exported.model)
        model = inliner.inline_local_functions(model) if model.functions else model
        onnx_weights.write(model, Path(folder) / "model.onnx")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error
    inputs = [value.name for value in model.graph.input]
    spec = program.call_spec.in_spec
    if spec is None or spec.num_leaves != len(inputs):
        raise UnsupportedError(f"{path}: has inputs that are no tensors; export it with tensors only")
    # Guards would be compiled from text in the file; sizes are checked by comparing results instead.
    module = program.module(check_guards=False)
    _opened[folder] = module, inputs, [value.name for value in model.graph.output]
    return {}


def run(path: str, folder: str) -> dict[str, Any]:
    """Run the program on ``inputs.npz`` in ``folder``, and write ``outputs.npz``.

    Raises:
        UnsupportedError: it has outputs that are no tensors.
    """
    module, inputs, outputs = _opened[folder]
    with np.load(Path(folder) / "inputs.npz", allow_pickle=False) as feeds, torch.no_grad():
        found = module(*(torch.from_numpy(feeds[name]) for name in inputs))
    if len(found) != len(outputs) or not all(isinstance(value, torch.Tensor) for value in found):
        raise UnsupportedError(f"{path}: has outputs that are no tensors; export it with tensors only")
    np.savez(
        Path(folder) / "outputs.npz",
        **{str(index): value.detach().numpy() for index, value in enumerate(found)},
    )
    return {"outputs": outputs}


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """The task of :class:`~tsmerge_export.untrusted.isolated.Child`."""
    if request.pop("do") == "convert":
        return convert(**request)
    return run(**request)
