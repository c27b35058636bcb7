"""Weights of exported files, changed a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def changed_weight(source: Path, to: Path, seed: int) -> str:
    """One weight of the merged file 1 % off: the largest of a matrix, drawn by the seed."""
    proto = onnx.load(source)
    matrices = [
        weight
        for weight in proto.graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT and len(weight.dims) == 2 and min(weight.dims) > 4
    ]
    weight = matrices[int(np.random.default_rng(seed).integers(len(matrices)))]
    values = numpy_helper.to_array(weight).copy()
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[at] *= 1.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, to)
    return str(weight.name)
