"""Scales of activations that were fixed beforehand, held against the ranges that they follow from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from tsmerge_export.onnx_model.weights import array_of
from tsmerge_export.precision.ranges import Ranges

#: Relative error of a scale that was computed in float32.
_ROUNDING = 1e-4
#: Of a range, what may come out otherwise on another machine: sums in another order move a value from one of the
#: histogram's bins, a thousandth wide, to the next.
_AGAIN = 0.01
_LEVELS = 255


@dataclass(frozen=True)
class Activation:
    """What a product reads in 8 bits.

    Attributes:
        product: name of the node. name: of the value in float32. scale, zero: of its numbers, from 0 to 255.
    """

    product: str
    name: str
    scale: float
    zero: int


def activations(model: onnx.ModelProto) -> Iterator[Activation]:
    """Those of all products whose weight is stored in 8 bits.

    Raises:
        KeyError, ValueError: a product is not written as the quantiser writes it.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type != "MatMul" or made.get(node.input[1], node).op_type != "DequantizeLinear":
            continue
        back = made[node.input[0]]
        there = made[back.input[0]]
        if (back.op_type, there.op_type) != ("DequantizeLinear", "QuantizeLinear"):
            raise ValueError(f"{node.name} reads {back.op_type} of {there.op_type}")
        pairs = [[array_of(tensors[name]) for name in one.input[1:]] for one in (there, back)]
        if not all(np.array_equal(mine, own) for mine, own in zip(*pairs, strict=True)):
            raise ValueError(f"what {node.name} reads is written with one scale and read with another")
        scale, zero = pairs[0]
        yield Activation(node.name, there.input[0], scale.item(), zero.item())


def faults(low: onnx.ModelProto, ranges: Ranges) -> list[str]:
    """A line for each scale or zero point that does not follow from its range by the formula."""
    out = []
    try:
        for one in activations(low):
            if one.name not in ranges:
                out.append(f"what {one.product!r} reads, {one.name!r}, has no calibrated range")
                continue
            bottom, top = min(ranges[one.name][0], 0.0), max(ranges[one.name][1], 0.0)
            scale = (top - bottom) / _LEVELS
            if scale == 0:  # nothing but zeros: any scale will do
                continue
            if not abs(one.scale - scale) <= _ROUNDING * scale:
                out.append(
                    f"what {one.product!r} reads has a scale of {one.scale:.4g}, where its calibrated range gives "
                    f"{scale:.4g}"
                )
            elif not abs(one.zero + bottom / scale) <= 0.5 + _ROUNDING * _LEVELS:
                out.append(
                    f"what {one.product!r} reads has the zero point {one.zero}, where its calibrated range gives "
                    f"{-bottom / scale:.0f}"
                )
    except (KeyError, ValueError, IndexError) as error:
        out.append(f"a quantised product is not written as ONNX Runtime's quantiser writes it ({error})")
    return out


def moved(said: Ranges, again: Ranges) -> list[str]:
    """A line for each range of a bundle that calibrating again does not give."""
    out = []
    for name in sorted({*said, *again}):
        if name not in said or name not in again:
            out.append(f"{name!r} was {'' if name in said else 'not '}calibrated, and now it is otherwise")
            continue
        span = max(abs(edge) for edge in (*said[name], *again[name]))
        if any(
            not abs(mine - own) <= _AGAIN * span for mine, own in zip(said[name], again[name], strict=True)
        ):
            (low, high), (below, above) = said[name], again[name]
            out.append(
                f"{name!r} was calibrated from {low:.4g} to {high:.4g}; the same series now give {below:.4g} to "
                f"{above:.4g}"
            )
    return out
