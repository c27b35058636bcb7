"""A family whose artefacts forecast a constant: their errors are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser
from torch import nn

from tsmerge_export.families.base import TensorSpec
from tsmerge_export.verify.data import Table

HORIZON, CONTEXT, LEVELS = 4, 32, (0.25, 0.5, 0.75)


class Component:
    name = "model"
    outputs = (TensorSpec("quantiles", "float32", ("batch", 3, HORIZON)),)

    def from_series(self, model: nn.Module, series: np.ndarray) -> dict[str, np.ndarray]:
        return {"context": series}


class Family:
    name = "standin"

    def horizon(self, model: nn.Module) -> int:
        return HORIZON

    def context(self, model: nn.Module) -> int:
        return CONTEXT

    def quantile_levels(self, model: nn.Module) -> tuple[float, ...]:
        return LEVELS

    def forecast(
        self, model: nn.Module, run: Callable[..., Any], series: np.ndarray, seed: int = 0
    ) -> np.ndarray:
        return run({"context": series})["quantiles"]


def constant_forecast(path: Path, value: float) -> Path:
    """An artefact that forecasts ``value`` at every level and step."""
    model = parser.parse_model(f"""
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[batch, length] context) => (float[batch, 3, {HORIZON}] quantiles)
    {{
        tail = Constant <value = int64[2] {{3, {HORIZON}}}> ()
        batch_size = Shape <end: int = 1> (context)
        shape = Concat <axis: int = 0> (batch_size, tail)
        value = Constant <value = float[1] {{{value}}}> ()
        quantiles = Expand (value, shape)
    }}
    """)
    onnx.save(model, path)
    return path


def table(rows: int = 200) -> Table:
    """Column a alternates between 2 and 4 (mean 3, deviation 1), column b is three times that."""
    a = np.where(np.arange(rows) % 2 == 0, 2.0, 4.0)
    return Table("t.csv", ("a", "b"), np.stack([a, 3 * a], axis=1))
