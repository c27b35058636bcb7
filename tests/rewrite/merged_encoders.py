"""Encoders, merged and opened, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig


def merged(
    model: ir.Model, config: MergeConfig, **options: Any
) -> tuple[ort.InferenceSession, RewriteReport]:
    model, report = merge_graph(model.clone(), config, token_mask="token_mask", **options)
    return open_session(to_portable(model), 1), report


def inputs(batch: int, tokens: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch * 100 + tokens)
    mask = np.ones((batch, tokens), np.int64)
    mask[0, : tokens // 3] = 0
    return {"x": rng.standard_normal((batch, tokens, 4)).astype(np.float32), "mask": mask}
