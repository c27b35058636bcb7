"""The quantiser's formulas in numpy, written from ONNX Runtime's documents and not from its code or ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Floats = NDArray[np.float64]


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def by_channel(weight: NDArray[Any]) -> tuple[NDArray[np.int8], Floats]:
    """Symmetric, of each column: the largest magnitude is 127."""
    scale = np.abs(weight.astype(np.float64)).max(axis=0) / 127
    return np.rint(weight / np.where(scale > 0, scale, 1)).astype(np.int8), scale


def by_block(weight: NDArray[Any], bits: int, block: int) -> tuple[NDArray[Any], Floats, Floats]:
    """With a zero point, of each run of rows in a column: numbers ``[rows, columns]``, scales and zeros of the same."""
    numbers, scales, zeros = (np.zeros(weight.shape) for _ in range(3))
    for start in range(0, len(weight), block):
        part = weight[start : start + block].astype(np.float64)
        padded = part if len(part) == block else np.concatenate([part, np.zeros((1, part.shape[1]))])
        low, high = np.minimum(padded.min(axis=0), 0), np.maximum(padded.max(axis=0), 0)
        scale = (high - low) / (2**bits - 1)
        zero = np.clip(np.rint(-low / np.where(scale > 0, scale, 1)), 0, 2**bits - 1)
        where = slice(start, start + block)
        numbers[where] = np.clip(np.rint(part / np.where(scale > 0, scale, 1) + zero), 0, 2**bits - 1)
        scales[where], zeros[where] = scale, zero
    return numbers, scales, zeros


def dynamically(x: NDArray[np.float32], weight: NDArray[np.int8], scale: Floats) -> Floats:
    """``x`` in 8 bits by its own range, times a weight in 8 bits, in whole numbers; DynamicQuantizeLinear-11."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = int(np.clip(np.rint(-low / step), 0, 255))
    numbers = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64)
    product: Floats = (numbers - zero) @ weight.astype(np.int64) * (float(step) * scale)
    return product


def of_range(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of numbers from 0 to 255 that span a range and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    return scale, round(-low / scale)


def statically(
    x: NDArray[np.float32], span: tuple[float, float], weight: NDArray[np.int8], scale: Floats
) -> Floats:
    """``x`` in 8 bits by a range that is given, clipped to it, times a weight in 8 bits; QuantizeLinear-13."""
    step, zero = of_range(*span)
    numbers = np.clip(np.rint(x / np.float32(step)) + zero, 0, 255).astype(np.int64)
    product: Floats = (numbers - zero) @ weight.astype(np.int64) * (step * scale)
    return product


def unpacked(tensor: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """The numbers of a row of bytes; of two in one the lower four bits come first."""
    rows = tensor.reshape(tensor.shape[0], -1).astype(np.int64)
    if bits == 8:
        return rows
    return np.concatenate([rows[..., None] % 16, rows[..., None] // 16], axis=-1).reshape(len(rows), -1)
