"""One trace per kind of model and run of the tests: whoever asks first makes it, all others put their weights into it.

The exporter takes 2 to 20 CPU-seconds for a model of two layers, hundreds of times what the model itself takes, and
some hundred tests begin with it. Tracing sees no value of a weight, so that models which differ in these alone share
one trace, with all workers of a run. Tests of the exporter itself call ``tsmerge_export.compile.onnx_export`` as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import nn

from tsmerge_export.compile import onnx_export
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model import weights as onnx_weights

#: Environment variable with the folder that the workers of a run share; ``tests/conftest.py`` makes it.
FOLDER = "TSMERGE_TESTS_EXPORTS"

_traced: dict[str, onnx.ModelProto] = {}
_finished: dict[tuple[str, str], ir.Model] = {}
#: Of a config, what says where the weights come from.
_ORIGINS = ("dtype", "torch_dtype", "tsmerge", "transformers_version", "_name_or_path")
_PLAIN = (bool, int, float, str, tuple, list, type(None))


def _described(component: Component, model: nn.Module, opset: int) -> Iterator[bytes]:
    """All that a trace follows from, within one state of the sources: not the values of weights."""
    kind = type(component)
    about = (
        kind.__module__,
        kind.__qualname__,
        component.name,
        component.inputs,
        component.outputs,
        component.hints,
    )
    yield repr((*about, opset, model)).encode()
    for module in model.modules():  # what no repr tells: configs, and numbers such as the length of a chunk
        plain = {key: value for key, value in vars(module).items() if isinstance(value, _PLAIN)}
        yield repr((type(module), _config(module), plain)).encode()
    weights = model.state_dict()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        yield repr((name, value.dtype, tuple(value.shape))).encode()
        yield b"" if name in weights else _bytes(value)


def _config(module: nn.Module) -> Any:
    config = getattr(module, "config", None)
    if not hasattr(config, "to_dict"):
        return config
    told = {key: value for key, value in config.to_dict().items() if key not in _ORIGINS}
    return json.dumps(told, sort_keys=True, default=repr)  # a file of it has another order


def _bytes(value: torch.Tensor) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _hooked(model: nn.Module) -> bool:
    """Whether hooks, such as merging's, could change what is traced."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def export_component(
    component: Component,
    model: nn.Module,
    *,
    opset: int = onnx_export.DEFAULT_OPSET,
    folder: Path | None = None,
) -> ir.Model:
    """As :func:`tsmerge_export.compile.onnx_export.export_component`; the caller may change what it gets."""
    shared = os.environ.get(FOLDER)
    own = type(component).__module__.startswith("tsmerge_export.families.")
    if shared is None or not own or _hooked(model):
        return onnx_export.export_component(component, model, opset=opset, folder=folder)
    kind = _digest(_described(component, model, opset))
    weights = _digest(_bytes(value) for value in model.state_dict().values())
    if (kind, weights) not in _finished:
        program = torch.onnx.ONNXProgram(
            _with_weights(_trace(kind, shared, component, model, opset), component, model), None
        )
        _finished[kind, weights] = onnx_export.finish(program, component, model)
    made = _finished[kind, weights].clone()
    return made if folder is None else onnx_weights.to_files(made, folder)


def _trace(kind: str, shared: str, component: Component, model: nn.Module, opset: int) -> onnx.ModelProto:
    if kind not in _traced:
        file = Path(shared, f"{kind}.onnx")
        with Path(shared, f"{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker that needs it now waits for the first
            if not file.exists():
                _write(onnx_export.trace(component, model, opset=opset).model_proto, file)
        _traced[kind] = onnx.load(file)
    return _traced[kind]


def _with_weights(proto: onnx.ModelProto, component: Component, model: nn.Module) -> ir.Model:
    traced = ir.serde.deserialize_model(proto)
    weights = component.module(model).state_dict()
    for name, value in traced.graph.initializers.items():
        if name in weights:
            assert tuple(value.shape) == tuple(weights[name].shape)
            value.const_value = ir.tensor(weights[name].detach().numpy().copy(), name=name)
    return traced


def _write(proto: onnx.ModelProto, file: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as half:
        half.write(proto.SerializeToString())
    Path(half.name).replace(file)
