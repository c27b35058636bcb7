"""Files made of torch's own attention modules and of packed attention: merged in every layer, and barriers nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from tests.graphs.attention_models import LAYERS, build, export
from tests.graphs.bundles import bundle_of
from tsmerge_export import Bundle
from tsmerge_export.errors import UnsupportedError, VerdictError
from tsmerge_export.graphs.model import GraphOptions, load_graph_model
from tsmerge_export.rewrite import regroup
from tsmerge_export.rewrite.rules import shapes
from tsmerge_export.settings.config import MergeConfig

RATIO = MergeConfig(ratio="1/4", min_tokens=2)
slow = pytest.mark.slow
# kind, how it is exported
CASES: list[Any] = [
    ("torch-sequence", {"opset": 18}),
    ("torch-pre-padding", {"opset": 17, "old": True}),
    ("packed", {"opset": 23}),
    ("causal", {"opset": 13, "old": True, "batch": 3}),
    ("torch-pre-sequence", {"opset": 14, "old": True, "batch": 1}),
    *(
        pytest.param(kind, {"opset": opset}, marks=slow)
        for kind in ("torch", "torch-pre", "torch-pre-sequence", "torch-sequence-padding", "packed", "causal")
        for opset in (18, 23)
        # ONNX Runtime 1.31 runs no fused Attention whose mask has one row for all queries.
        if (kind, opset) != ("torch-sequence-padding", 23)
    ),
    *(
        pytest.param(kind, {"opset": opset, "old": True, "batch": batch}, marks=slow)
        for kind, opset in (("torch", 14), ("torch-sequence", 18), ("packed", 14), ("weights", 13), ("causal", 17))
        for batch in (1, 2)
    ),
]  # fmt: skip


def _lengths(bundle: Bundle, feeds: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Queries and keys of every attention, as the merged file computes them."""
    model = onnx.load(next(bundle.path.glob("*.onnx")))
    names = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    values = ort.InferenceSession(model.SerializeToString(), options).run(names, feeds)
    return [value.shape[-2:] for value in values]


@pytest.mark.parametrize(("kind", "how"), CASES)
def test_no_barrier(kind: str, how: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.onnx"
    export(kind, file, **how)
    prop_attn = kind == "causal"
    bundle = bundle_of(file, MergeConfig(ratio="1/4", min_tokens=2, prop_attn=prop_attn))
    part, parity = bundle.manifest["components"][0], bundle.verdicts["parity"]
    assert len(part["merges"]) == LAYERS and part["barriers"] == []
    assert parity["passed"] and parity["max_rel"] < 2e-5 and parity["cases"] >= 7
    assert parity["rows"] > 2 * parity["decision_flips"]
    # The tokens that attention really runs over: 24, less a quarter in each layer.
    feeds = load_graph_model(file, GraphOptions()).example(0)
    tokens = feeds["x"].shape[1]
    expected = [tokens, tokens - tokens // 4]
    expected.append(expected[-1] - expected[-1] // 4)
    assert _lengths(bundle, feeds) == [(n, n) for n in expected]


def test_the_file_is_the_module_where_nothing_merges(tmp_path: Path) -> None:
    """Bit for bit the unmerged file, and as near to torch as that."""
    file = tmp_path / "torch-sequence.onnx"
    export("torch-sequence", file, opset=18)
    bundle = bundle_of(file, MergeConfig(min_tokens=100_000))
    x = np.random.default_rng(0).standard_normal((3, 17, 3)).astype(np.float32)
    (path,) = bundle.path.glob("*.onnx")
    got, plain = (ort.InferenceSession(each).run(["y"], {"x": x})[0] for each in (path, file))
    assert got.tobytes() == plain.tobytes()
    with torch.no_grad():
        np.testing.assert_allclose(
            got, build("torch-sequence")(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5
        )


def test_a_batch_that_is_taken_for_tokens_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rule of the rewriter, wrong: heads counted in front of the batch behind a Reshape."""
    file = tmp_path / "causal.onnx"
    export("causal", file, opset=13, old=True, batch=3)

    def wrong(*args: Any) -> Any:
        found, rows, moved = regroup.regroup(*args)
        return found, regroup.Rows(rows.axis, 1, rows.tokens_first), moved

    monkeypatch.setattr(shapes, "regroup", wrong)
    with pytest.raises(VerdictError, match="no bundle is written"):
        bundle_of(file)


def test_batch_and_tokens_of_one_fixed_length_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "square.onnx"
    export("torch-sequence", file, opset=17, old=True, batch=8, tokens=8)
    with pytest.raises(UnsupportedError, match="batch and tokens cannot be told apart"):
        bundle_of(file)
