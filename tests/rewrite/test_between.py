"""Merging between blocks in graphs of no family: heads behind the last block, loops, and what goes round a merge."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.merge import local_merge, unmerge
from tsmerge_export.rewrite.blocks import find_blocks
from tsmerge_export.rewrite.infer import infer_shapes
from tsmerge_export.rewrite.lengths import token_counts
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.rewrite.subgraphs import captured
from tsmerge_export.settings.config import MergeConfig


class Blocks(nn.Module):
    """Two blocks by depthwise convolution and, if asked, a loop over the tokens; then all heads.

    Args:
        skip: the second block also sees the input of the first. loop: what the body of the
            loop uses from outside: a weight, data without tokens, or the tokens of the model's input.
    """

    def __init__(self, skip: bool = False, loop: str = "none") -> None:
        super().__init__()
        self.skip, self.loop = skip, loop
        self.mix = nn.ModuleList(nn.Conv1d(6, 6, 3, padding=1, groups=6) for _ in range(2))
        self.weight = nn.Parameter(torch.linspace(0.1, 0.9, 6))
        self.linear, self.norm = nn.Linear(6, 4), nn.LayerNorm(6)

    def block(self, number: int, h: Tensor, x: Tensor) -> Tensor:
        inner = torch.tanh(h + x) if self.skip and number else torch.tanh(h)
        inner = self.mix[number](inner.transpose(1, 2)).transpose(1, 2)
        if self.loop != "none":
            outside = {"weight": self.weight, "data": h.mean(1), "round": x}[self.loop]

            def step(state: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
                gate = outside.mean(1) if self.loop == "round" else outside
                state = torch.sigmoid(gate) * state + now
                return state.clone(), state.clone()

            inner = scan(step, torch.zeros_like(inner[:, 0]), inner.transpose(0, 1), dim=0)[1].transpose(0, 1)
        return h + inner

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """What every head makes of it."""
        h = x
        for number in range(2):
            h = self.block(number, h, x)
        return tuple(head(self, h, x) for head in HEADS.values())


HEADS: dict[str, Any] = {
    "none": lambda m, h, x: h,
    "per token": lambda m, h, x: torch.softmax(m.linear(m.norm(h) * m.weight), -1).sum(-1, keepdim=True),
    "mean": lambda m, h, x: m.linear(m.norm(h).mean(1)),
    "softmax over tokens": lambda m, h, x: torch.softmax(m.linear(h), 1),
    "last": lambda m, h, x: m.linear(m.norm(h)[:, -1]),
    "last as slice": lambda m, h, x: m.linear(h[:, -1:]).flatten(1),
    "last three": lambda m, h, x: m.linear(h)[:, -3:],
    "first": lambda m, h, x: m.linear(h[:, 0]),
    "some features": lambda m, h, x: h[..., 2:5],
    "second but last feature": lambda m, h, x: h[..., -2],
    "input once more": lambda m, h, x: m.linear(h) + m.linear(x),
    "heads apart": lambda m, h, x: h.reshape(h.shape[0], h.shape[1], 2, 3).transpose(1, 2),
    "difference": lambda m, h, x: h[:, 1:] - h[:, :-1],
    "cumulated": lambda m, h, x: h.cumsum(1),
    "numbered": lambda m, h, x: h * torch.arange(h.shape[1], device=h.device)[None, :, None],
    "counted": lambda m, h, x: h.sum(1) / h.shape[1],
    "normalised over tokens": lambda m, h, x: h / h.amax(1, keepdim=True),
}

#: Heads that cost an Unmerge of all tokens before the output.
NEED_TOKENS = tuple(name for name in HEADS if not name.startswith("last") or name == "last three")

#: Heads that are reported as barriers: they do more behind it.
MIX_TOKENS = tuple(
    name
    for name in NEED_TOKENS
    if name not in ("none", "per token", "some features", "second but last feature")
)


@cache
def module(skip: bool = False, loop: str = "none") -> Blocks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return Blocks(skip, loop).eval()


@cache
def exported(skip: bool = False, loop: str = "none") -> ir.Model:
    x = torch.randn(2, 11, 6)
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(
            module(skip, loop), (x,), dynamic_shapes=dynamic, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=18,
            verbose=False,
            input_names=["x"],
            output_names=[f"head {n}" for n in HEADS],
        )
    assert found is not None
    return found.model


def graph_of(head: str, skip: bool = False, loop: str = "none") -> ir.Model:
    """The part of the graph that ends in one head."""
    model = exported(skip, loop).clone()
    model.graph.outputs[:] = [value for value in model.graph.outputs if value.name == f"head {head}"]
    RemoveUnusedNodesPass()(model)
    return model


def by_hand(m: Blocks, head: str, x: Tensor, layers: tuple[int, ...], **options: Any) -> Tensor:
    """Merged after the blocks, unmerged behind the last, then the head."""
    h, targets, size = x, [], None
    for number in range(2):
        h = m.block(number, h, x)
        if number in layers:
            out = local_merge(h, size=size, ratio="1/3", **options)
            h, size = out.y, out.size
            targets.append(out.target)
    for target in reversed(targets):
        h = unmerge(h, target)
    return HEADS[head](m, h, x)


def compare(
    model: ir.Model, head: str, layers: tuple[int, ...], m: Blocks | None = None, **options: Any
) -> None:
    session = open_session(to_portable(model), 1)
    for batch, length in ((1, 4), (3, 17), (2, 40)):
        x = torch.randn(batch, length, 6, generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            want = by_hand(m or module(), head, x, layers, **options).numpy()
        got = session.run(None, {"x": x.numpy()})[0]
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_behind_the_last_block_only_what_treats_tokens_alone_sees_merged_ones(head: str) -> None:
    model, report = merge_graph(graph_of(head), MergeConfig(ratio="1/3", min_tokens=0), protect_last=1)
    assert len(report.merges) == 2
    compare(model, head, (0, 1), protect_last=1)
    assert any(node.op_type == "Unmerge" for node in model.graph) == (head in NEED_TOKENS)
    assert bool(report.barriers) == (head in MIX_TOKENS)


@pytest.mark.parametrize("head", ["last", "last as slice"])
def test_the_last_token_is_picked_from_the_originals_where_it_may_merge(head: str) -> None:
    model, _ = merge_graph(graph_of(head), MergeConfig(ratio="1/3", min_tokens=0))
    compare(model, head, (0, 1))
    assert any(node.op_type == "Unmerge" for node in model.graph)


def test_blocks_behind_the_last_merge_are_no_head() -> None:
    model, _ = merge_graph(
        graph_of("mean"), MergeConfig(ratio="1/3", min_tokens=0, layers=(0,)), protect_last=1
    )
    compare(model, "mean", (0,), protect_last=1)
    conv = [node for node in model.graph if node.op_type == "Conv"][1]
    assert "tokens_after_layer_0" in str(conv.inputs[0].shape)  # type: ignore[union-attr]


@pytest.mark.parametrize("loop", ["weight", "data"])
def test_loops_run_over_merged_tokens_whatever_their_body_captures(loop: str) -> None:
    plain = graph_of("none", loop=loop)
    scans = [node for node in plain.graph if node.op_type == "Scan"]
    assert len(scans) == 2
    model, _ = merge_graph(plain, MergeConfig(ratio="1/3", min_tokens=0))
    compare(model, "none", (0, 1), module(loop=loop))


def test_a_captured_value_with_one_entry_per_token_is_refused() -> None:
    plain = graph_of("none", loop="round")
    scans = [node for node in plain.graph if node.op_type == "Scan"]
    names = {value.name for node in scans for value in (*node.inputs, *captured(node)) if value is not None}
    assert "x" in names
    with pytest.raises(
        UnsupportedError, match="'x', which has one entry per token and does not pass the merge"
    ):
        merge_graph(plain, MergeConfig(ratio="1/3"))


def test_the_residual_is_what_the_convolution_comes_from() -> None:
    """An Add of something else of the same shape, and one of two values behind the convolution, close no block."""
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[B, N, 2] x) => (float[B, N, 2] y)
        <float[2, 1, 3] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}> {
            t = Transpose<perm = [0, 2, 1]>(x)
            mixed = Conv<group = 2, pads = [1, 1]>(t, w)
            u = Transpose<perm = [0, 2, 1]>(mixed)
            side = Cos(x)
            inner = Add(u, side)
            gate = Sigmoid(u)
            both = Add(inner, gate)
            y = Add(x, both)
        }"""
    points = find_blocks(infer_shapes(ir.serde.deserialize_model(onnx.parser.parse_model(text))).graph)
    assert [(point.value.name, point.hidden) for point in points] == [("y", 1)]


@pytest.mark.parametrize("skip", [False, True])
def test_a_value_that_goes_round_the_merge_is_refused(skip: bool) -> None:
    graph = graph_of("none", skip=skip)
    assert len(find_blocks(graph.graph)) == 2
    if skip:
        with pytest.raises(UnsupportedError, match="one entry per token and does not pass the merge"):
            merge_graph(graph, MergeConfig("ssm"))
    else:
        assert len(merge_graph(graph, MergeConfig("ssm"))[1].merges) == 2


class Patches(nn.Module):
    """Two blocks over patches of 4 steps: the number of tokens is ``(length + 3) // 4``, which every block reads to pad
    its tokens to a multiple of 8, to mix groups of 8, to cut them to their number and to weigh them by it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.mix = nn.ModuleList(nn.Conv1d(6, 6, 3, padding=1, groups=6) for _ in range(2))

    def read(self, series: Tensor) -> Tensor:
        batch, length = series.shape
        patches = (length + 3) // 4
        padded = torch.cat([series.new_zeros((batch, patches * 4 - length)), series], 1)
        return self.embed(padded.reshape(batch, patches, 4))

    def block(self, number: int, h: Tensor) -> Tensor:
        batch, tokens, _ = h.shape
        inner = self.mix[number](h.transpose(1, 2)).transpose(1, 2)
        groups = (tokens + 7) // 8
        inner = nn.functional.pad(inner, (0, 0, 0, groups * 8 - tokens)).reshape(batch, groups, 8, 6)
        inner = (inner + inner.mean(2, keepdim=True)).reshape(batch, groups * 8, 6)[:, :tokens]
        return h + torch.tanh(inner) * torch.arange(tokens)[None, :, None] / tokens

    def forward(self, series: Tensor) -> Tensor:
        h = self.read(series)
        for number in range(2):
            h = self.block(number, h)
        return h[:, -1]


def test_a_number_of_tokens_that_is_computed_from_the_length_is_that_of_the_merged_ones() -> None:
    torch.manual_seed(5)
    module, dynamic = Patches().eval(), ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad():
        program = torch.export.export(
            module, (torch.randn(3, 85),), dynamic_shapes=dynamic, strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        found = torch.onnx.export(
            program, dynamo=True, opset_version=18, verbose=False, input_names=["x"], output_names=["y"]
        )
    assert found is not None
    model, report = merge_graph(found.model, MergeConfig(ratio="1/3", min_tokens=0), protect_last=1)
    assert "//" in report.merges[0].before
    assert token_counts(found.model.graph, report.merges[0].before)
    session = open_session(to_portable(model), 1)
    for batch, length in ((1, 3), (2, 37), (3, 161)):
        x, size = torch.randn(batch, length), None
        with torch.no_grad():
            h = module.read(x)
            for number in range(2):
                out = local_merge(module.block(number, h), size=size, ratio="1/3", protect_last=1)
                h, size = out.y, out.size
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], h[:, -1], rtol=1e-4, atol=1e-5)
