"""One export per model and run of the tests: whoever asks first makes it, later askers and other workers get a copy.

The exporter takes 2 to 20 CPU-seconds for a model of two layers, hundreds of times what the model itself takes, and
some fifty tests begin with it. The maker goes on with the exporter's own result, the others with a file of it. Tests of
the exporter itself call ``tsmerge_export.compile.onnx_export`` as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import nn

from tsmerge_export.compile import onnx_export
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model import weights as onnx_weights

#: Environment variable with the folder that the workers of a run share; ``tests/conftest.py`` makes it.
FOLDER = "TSMERGE_TESTS_EXPORTS"

_made: dict[str, ir.Model] = {}
#: In a config that was read from a file: the type of the weights, which are asked themselves.
_WRITTEN = re.compile(r'\s*"dtype": "\w+",')
_PLAIN = (bool, int, float, str, tuple, list, type(None))


def _described(component: Component, model: nn.Module, opset: int) -> Iterator[bytes]:
    """All that an export follows from, within one state of the sources."""
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
        config = _WRITTEN.sub("", repr(getattr(module, "config", None)))
        yield repr((type(module), config, plain)).encode()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        yield repr((name, value.dtype, tuple(value.shape))).encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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
    digest = hashlib.sha256()
    for part in _described(component, model, opset):
        digest.update(len(part).to_bytes(8, "big") + part)
    key = digest.hexdigest()
    if key not in _made:
        file = Path(shared, f"{key}.onnx")
        with Path(shared, f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second worker that needs it now waits for the first
            if file.exists():
                _made[key] = ir.serde.deserialize_model(onnx.load(file))
            else:
                _made[key] = onnx_export.export_component(component, model, opset=opset)
                _write(ir.serde.serialize_model(_made[key]), file)
    made = _made[key].clone()
    return made if folder is None else onnx_weights.to_files(made, folder)


def _write(proto: onnx.ModelProto, file: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as half:
        half.write(proto.SerializeToString())
    Path(half.name).replace(file)
