"""Unmerge in ONNX Runtime against the reference, for the types and ranks that models use."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from tests.ops.harness import add_functions, session
from tsmerge_export.methods.combine import unmerge


@pytest.mark.parametrize("name", ["float", "float16", "int64", "bool"])
@pytest.mark.parametrize("rest", [(), (5,), (2, 3)])
@pytest.mark.parametrize(("batch", "left", "tokens"), [(1, 1, 1), (2, 3, 7), (3, 6, 6)])
def test_unmerge(name: str, rest: tuple[int, ...], batch: int, left: int, tokens: int) -> None:
    dims = "".join(f", {n}" for n in rest)
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>\n'
        f"g ({name}[B, M{dims}] y, int64[B, N] target) => ({name}[B, N{dims}] z) {{ z = tsmerge.Unmerge(y, target) }}"
    )
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(tokens)
    dtype: Any = {"float": np.float32, "float16": np.float16, "int64": np.int64, "bool": np.bool_}[name]
    y = (rng.standard_normal((batch, left, *rest)) * 9).astype(dtype)
    target = rng.integers(0, left, (batch, tokens))
    (z,) = session(model).run(None, {"y": y, "target": target})
    np.testing.assert_array_equal(z, unmerge(torch.from_numpy(y), torch.from_numpy(target)))
