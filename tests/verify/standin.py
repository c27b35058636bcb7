"""A two-layer stand-in for a model family, with its artefact written by hand: parity can be tested on its own.

Series ``[B, 4 N]`` become N tokens of 4 values; each layer is ``x + relu(x W)``, merge with k = 1, ratio 1/4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper, parser
from torch import Tensor, nn

from tsmerge_export.families.base import TensorSpec
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.settings.config import MergeConfig

PATCH, WIDTH, LAYERS = 4, 8, 2

# Slow and plain on purpose; only for the sizes of these tests.
FUNCTION = """
<opset_import: ["" : 18], domain: "tsmerge">
LocalMerge <ratio_den>(x, size) => (y, size_out, kept, target)
{
    den = Constant <value_int: int = @ratio_den> ()
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    minus = Constant <value = int64[1] {-1}> ()
    zero_s = Constant <value_int: int = 0> ()
    one_s = Constant <value_int: int = 1> ()
    batch = Shape <start: int = 0, end: int = 1> (x)
    n = Shape <start: int = 1, end: int = 2> (x)
    pairs = Div (n, two)
    even = Mul (pairs, two)
    wanted = Div (n, den)
    r = Min (wanted, pairs)
    a = Slice (x, zero, even, one, two)
    b = Slice (x, one, even, one, two)
    ab = Mul (a, b)
    dot = ReduceSum <keepdims: int = 0> (ab, minus)
    na = ReduceL2 <keepdims: int = 0> (a, minus)
    nb = ReduceL2 <keepdims: int = 0> (b, minus)
    norm = Mul (na, nb)
    score = Div (dot, norm)
    best, index = TopK <axis: int = 1> (score, r)
    source = Mul (index, two)
    source_shape = Shape (source)
    ones = Expand (one, source_shape)
    bn = Concat <axis: int = 0> (batch, n)
    nothing = Expand (zero, bn)
    dropped = ScatterElements <axis: int = 1> (nothing, source, ones)
    stays = Sub (one, dropped)
    stays_b = Cast <to: int = 9> (stays)
    where = NonZero (stays_b)
    columns = Gather <axis: int = 0> (where, one_s)
    m = Sub (n, r)
    bm = Concat <axis: int = 0> (batch, m)
    kept = Reshape (columns, bm)
    count = CumSum (stays, one_s)
    before = Sub (count, one)
    target = Add (before, dropped)
    m_s = Squeeze (m)
    range_m = Range (zero_s, m_s, one_s)
    target_3 = Unsqueeze (target, minus)
    hit = Equal (target_3, range_m)
    hot = Cast <to: int = 1> (hit)
    hot_t = Transpose <perm: ints = [0, 2, 1]> (hot)
    size_3 = Unsqueeze (size, minus)
    weighted = Mul (x, size_3)
    total = MatMul (hot_t, weighted)
    size_out_3 = MatMul (hot_t, size_3)
    y = Div (total, size_out_3)
    size_out = Squeeze (size_out_3, minus)
}
"""


class Model(nn.Module):
    """The eager side."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(PATCH, WIDTH, generator=generator))
        self.layers = nn.ParameterList(
            torch.randn(WIDTH, WIDTH, generator=generator) / 3 for _ in range(LAYERS)
        )
        self.run: MergeRun | None = None

    def forward(self, series: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, L]`` -> tokens ``[B, M, 8]`` and an integer output, ``[B, M]`` sizes."""
        x = series.unfold(1, PATCH, PATCH) @ self.inner
        if self.run is not None:
            self.run.begin(None)
        for i, weight in enumerate(self.layers):
            x = x + torch.relu(x @ weight)
            if self.run is not None:
                x = self.run.merge(i, x)
        size = self.run.steps[-1].size if self.run is not None and self.run.steps else torch.ones(x.shape[:2])
        return x, size.long()


class Component:
    """The stand-in's component, by the interface of ``families.base.Component``."""

    name = "model"
    inputs = (TensorSpec("series", "float32", ("batch", "length")),)
    outputs = (
        TensorSpec("tokens", "float32", ("batch", "tokens", WIDTH)),
        TensorSpec("size", "int64", ("batch", "tokens")),
    )

    def from_series(self, model: nn.Module, series: np.ndarray) -> dict[str, np.ndarray]:
        return {"series": np.nan_to_num(series[:, : series.shape[1] // PATCH * PATCH])}

    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(zip(("tokens", "size"), model(inputs["series"]), strict=True))


class Family:
    """As much of a family as parity needs."""

    name = "standin"

    def context(self, model: nn.Module) -> int:
        return 256


@contextmanager
def merging(model: Model, merge: MergeConfig) -> Iterator[MergeRun]:
    """Replaces ``eager.apply.merged_inside``, which only knows real families."""
    run = MergeRun(make_plan(merge, LAYERS))
    model.run = run
    try:
        yield run
    finally:
        model.run = None


def artefact(model: Model, path: Path, *, den: int = 4, scale: float = 1.0, tail: str = "") -> Path:
    """Write the merged ONNX file.

    Args:
        den: merge 1/den of the tokens. scale: factor on one weight (1 is right).
        tail: ``kept`` shifts the second layer's decision by one pair, ``nan`` and ``integer`` break an output.
    """
    text = """
    <ir_version: 8, opset_import: ["" : 18, "tsmerge" : 1]>
    standin (float[batch, length] series) => (float[batch, tokens, 8] tokens, int64[batch, tokens] size)
    {
        shape = Constant <value = int64[3] {0, -1, 4}> ()
        patches = Reshape (series, shape)
        x0 = MatMul (patches, inner)
        ones_shape = Shape <start: int = 0, end: int = 2> (x0)
        s0 = ConstantOfShape <value = float[1] {1.0}> (ones_shape)
        h0 = MatMul (x0, w0)
        g0 = Relu (h0)
        a0 = Add (x0, g0)
        x1, s1, k1, t1 = tsmerge.LocalMerge <ratio_den: int = DEN> (a0, s0)
        h1 = MatMul (x1, w1)
        g1 = Relu (h1)
        a1 = Add (x1, g1)
        x2, s2, k2, t2 = tsmerge.LocalMerge <ratio_den: int = DEN> (SECOND, s1)
        TAIL
    }
    """
    tails = {
        "nan": "zero = Constant <value = float[1] {0.0}> ()\ninf = Div (one, zero)\ntokens = Mul (x2, inf)",
        "integer": "tokens = Identity (x2)",
    }
    text = text.replace("DEN", str(den)).replace("SECOND", "shifted" if tail == "kept" else "a1")
    body = tails.get(tail, "tokens = Identity (x2)") + "\nraw = Cast <to: int = 7> (s2)\n"
    body += "size = Add (raw, onei)" if tail == "integer" else "size = Identity (raw)"
    if tail == "kept":  # another score: the sign of one feature is turned before the second merge
        text = text.replace("x2, s2, k2, t2 =", "shifted = Mul (a1, flip)\nx2, s2, k2, t2 =")
    graph_model = parser.parse_model(text.replace("TAIL", body))
    weights = {"inner": model.inner, "w0": model.layers[0], "w1": model.layers[1]}
    arrays = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
    arrays["w0"][3, 3] *= scale
    arrays |= {"one": np.ones(1, np.float32), "onei": np.ones(1, np.int64)}
    flip = np.ones(WIDTH, np.float32)
    flip[2:] = 0.01
    arrays["flip"] = flip
    graph_model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    graph_model.functions.append(parser.parse_function(FUNCTION))
    onnx.save_model(graph_model, path)
    return path


assert TensorProto.BOOL == 9  # the numbers in FUNCTION
assert TensorProto.FLOAT == 1
