"""Training through fake quantisation: layers compute as the quantised file will, gradients pass straight through.

Which layers: those whose weights :mod:`tsmerge_export.precision` takes in the exported files, known by what is in them,
so that names of modules and of nodes need not agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsmerge_export.checkpoint import LoadedModel
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Family
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import BLOCKS, as_products
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32, INT8, Precision
from tsmerge_export.verify.cast import digest_of


def rounded_weight(weight: Tensor, kind: str) -> Tensor:
    """A layer's weight as a file of that precision holds it; its gradient is the rounded one's (straight-through).

    The formulas are those of :func:`~tsmerge_export.precision.quantise.quantised`, by PyTorch's own operator. Where a
    weight lies halfway between two numbers within float32, the file may have the other one.

    Args:
        weight: ``[out, in]`` float32. kind: ``int8``, ``int8-weights`` or ``int4-weights``.
    """
    fixed = weight.detach()
    if kind == INT8:
        scale = _above_zero((fixed.abs().amax(1).double() / 127).float())
        zeros = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)
    bits = Precision(kind).bits
    most, block = 2**bits - 1, BLOCKS[bits]
    missing = -weight.shape[1] % block
    cut = functional.pad(weight, (0, missing)).reshape(-1, block)
    low, high = functional.pad(fixed, (0, missing)).reshape(-1, block).aminmax(dim=1)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _above_zero((high - low) / most)
    zero = (-low / scale).round().clamp(0, most).int()
    made = torch.fake_quantize_per_channel_affine(cut, scale, zero, 0, 0, most)
    return made.reshape(len(weight), -1)[:, : weight.shape[1]]


def rounded_activations(values: Tensor) -> Tensor:
    """What ``DynamicQuantizeLinear`` makes of a tensor: 8 bits, one scale and one zero point, by its range."""
    low, high = values.detach().aminmax()
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = _above_zero((high - low) / 255)
    zero = (-low / scale).round().clamp(0, 255).int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)


def _above_zero(scale: Tensor) -> Tensor:
    """Zeros are zeros by any scale."""
    return torch.where(scale > 0, scale, torch.ones_like(scale))


@dataclass(frozen=True)
class Rounding:
    """Which layers of a model compute as in a quantised file.

    Attributes:
        kind: a precision; ``fp32`` rounds nothing. layers: names of the modules.
    """

    kind: str = FP32
    layers: tuple[str, ...] = ()

    def put_on(self, model: nn.Module) -> None:
        """From now on the layers round; their weights stay what they are."""
        for name in self.layers:
            module = model.get_submodule(name)
            module.forward = partial(_forward, module, self.kind)  # type: ignore[method-assign]

    def take_off(self, model: nn.Module) -> None:
        """The layers are as they were."""
        for name in self.layers:
            model.get_submodule(name).__dict__.pop("forward", None)

    @contextmanager
    def on(self, model: nn.Module) -> Iterator[None]:
        """The same for a block."""
        self.put_on(model)
        try:
            yield
        finally:
            self.take_off(model)


#: Nothing is rounded.
NOTHING = Rounding()


def _forward(module: Any, kind: str, values: Tensor) -> Tensor:
    given = rounded_activations(values) if kind == INT8 else values
    return functional.linear(given, rounded_weight(module.weight, kind), module.bias)


def rounding_of(
    kind: str, family: Family, model: nn.Module, config: Mapping[str, Any]
) -> tuple[Rounding, str | None]:
    """The layers of a model that its quantised files have, found by exporting it; nothing for ``fp32``.

    Args:
        model: in eval mode, on the CPU; it is not changed. config: of its file.

    Returns:
        The rounding, and a note where products of the files are no linear layers of the module.

    Raises:
        UnsupportedError: the model cannot be exported or quantised, or none of its layers is.
    """
    if kind == FP32:
        return NOTHING, None
    source = CheckpointSource(LoadedModel(model, family.name, dict(config), "the model"))
    compilation = Compilation(source, MergeConfig("none"))
    wanted: set[bytes] = set()
    for component in source.components:
        with TemporaryDirectory(prefix="tsmerge-distill-") as folder:
            file = compilation.merged(component, Path(folder)).merged
            compilation.forget(component)
            wanted |= _weights(file)
    found = {
        name: digest_of(module.weight.t())
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    layers = tuple(name for name, digest in found.items() if digest in wanted)
    if not layers:
        raise UnsupportedError(
            f"--precision {kind}: no linear layer of the model is quantised in its files; leave it out"
        )
    missing, note = len(wanted - set(found.values())), None
    if missing:
        note = (
            f"{missing} of {len(wanted)} weights that files in {kind} round are no linear layer's: they are trained in "
            "float32"
        )
    return Rounding(kind, layers), note


def _weights(file: Path) -> set[bytes]:
    model = as_products(onnx_weights.read(file))
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        digest_of(torch.from_numpy(np.array(onnx_weights.array_of(arrays[product.weight]))))
        for product in products(model)
    }
