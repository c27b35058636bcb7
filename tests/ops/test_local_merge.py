"""The function bodies of local merging in ONNX Runtime: special tokens, threads, memory, bodies beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

from tests.cases import untouched
from tests.ops.harness import add_functions, merge_model, session
from tsmerge_export import ops
from tsmerge_export.methods.local.reference import local_merge

_NAMES = ("k", "r", "ratio_num", "ratio_den", "min_tokens", "protect_first", "protect_last")


def attributes(k: int = 1, r: int = 0, ratio: tuple[int, int] = (0, 1), **rest: int) -> dict[str, int]:
    """All attributes, the ones not given at their neutral value."""
    values = {"k": k, "r": r, "ratio_num": ratio[0], "ratio_den": ratio[1], **rest}
    return {name: values.get(name, 0) for name in _NAMES}


def _run(
    k: int, x: np.ndarray, size: np.ndarray | None = None, threads: int = 1, **rest: object
) -> list[np.ndarray]:
    model = merge_model(attributes(k, **rest))  # type: ignore[arg-type]
    sizes = np.ones(x.shape[:2], np.float32) if size is None else size
    return session(model, threads).run(None, {"x": x, "metric": x, "size": sizes})


@pytest.mark.parametrize("k", [1, 2, 0])
@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 33])
def test_nothing_to_merge_is_the_identity(k: int, tokens: int) -> None:
    x, size = untouched(tokens)
    for rest in ({"r": 0}, {"r": 50, "min_tokens": 50}, {"r": 50, "protect_first": 20, "protect_last": 20}):
        y, size_out, kept, target = _run(k, x, size, **rest)
        assert y.tobytes() == x.tobytes()
        assert size_out.tobytes() == size.tobytes()
        assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


@pytest.mark.parametrize("k", [1, 3, 0])
def test_subnormal_and_largest_neighbours_of_padding_keep_their_bits(k: int) -> None:
    x = np.array([[[1.0, 2.0], [1e-45, 3.4028235e38], [np.nan, 1.0], [np.inf, -0.0]]], np.float32)
    y, _, kept, _ = _run(k, x, np.array([[0, 1, 0, 1]], np.float32), r=2)
    assert kept.tolist() == [[1, 3]]
    assert y.tobytes() == x[:, [1, 3]].tobytes()


@pytest.mark.parametrize("k", [2, 0])
def test_many_into_one_is_right_and_repeatable_with_threads(k: int) -> None:
    """Duplicate destinations: a scatter that adds in parallel would lose updates here."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 512, 512)).astype(np.float32)
    metric = np.ones((1, 512, 4), np.float32)
    run = session(merge_model(attributes(k, ratio=(1, 2))), threads=4)
    feeds = {"x": x, "metric": metric, "size": np.ones((1, 512), np.float32)}
    first = run.run(None, feeds)
    expected = local_merge(torch.from_numpy(x), torch.from_numpy(metric), k=k or None, ratio="1/2")
    np.testing.assert_array_equal(first[3], expected.target)
    np.testing.assert_allclose(first[0], expected.y, rtol=1e-4, atol=1e-5)
    for _ in range(20):
        for one, again in zip(first, run.run(None, feeds), strict=True):
            assert one.tobytes() == again.tobytes()


@pytest.mark.parametrize(("k", "widest"), [(1, 1), (2, 3), (8, 3)])
def test_linear_bodies_never_hold_a_square(k: int, widest: int, tmp_path: Path) -> None:
    """No intermediate grows faster than N; the sizes come from ONNX Runtime's profile of a run."""
    largest = []
    for tokens in (1024, 2048):
        prefix = str(tmp_path / f"{k}-{tokens}")
        model = merge_model(attributes(k, ratio=(1, 4)))
        run = session(model, enable_profiling=True, profile_file_prefix=prefix)
        x = np.random.default_rng(0).standard_normal((1, tokens, 64)).astype(np.float32)
        run.run(None, {"x": x, "metric": x, "size": np.ones((1, tokens), np.float32)})
        elements = []
        for entry in json.loads(Path(run.end_profiling()).read_text()):
            for shape in entry.get("args", {}).get("output_type_shape", []):
                elements += [int(np.prod(dims)) for dims in shape.values()]
        largest.append(max(elements))
    assert largest[1] <= 2 * largest[0]
    assert largest[1] <= widest * 2048 * 64


def test_different_bodies_live_in_one_model() -> None:
    """Nodes with different k chained in one model: one operator name, one function per overload, r shared."""
    calls, value = [], ("x", "size")
    for step, (k, r) in enumerate([(1, 3), (1, 5), (2, 4), (0, 6)]):
        settings = ", ".join(f"{name} = {v}" for name, v in attributes(k, r).items())
        calls.append(
            f"y{step}, s{step}, kept{step}, target{step} = "
            f"tsmerge.LocalMerge<{settings}>({value[0]}, {value[0]}, {value[1]})"
        )
        value = (f"y{step}", f"s{step}")
    back = value[0]
    for step in (3, 2, 1, 0):
        calls.append(f"u{step} = tsmerge.Unmerge({back}, target{step})")
        back = f"u{step}"
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>\n'
        f"g (float[B, N, D] x, float[B, N] size) => (float[B, N, D] u0, float[B, M] s3) {{ {' '.join(calls)} }}"
    )
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    assert sorted((f.name, f.overload) for f in model.functions) == [
        ("LocalMerge", "band"),
        ("LocalMerge", "dense"),
        ("LocalMerge", "k1"),
        ("Unmerge", ""),
    ]
    x = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(5))
    y, size, origin = x, torch.ones(2, 40), torch.arange(40).expand(2, 40)
    for neighbourhood, r in [(1, 3), (1, 5), (2, 4), (None, 6)]:
        merged = local_merge(y, size=size, k=neighbourhood, r=r)
        y, size, origin = merged.y, merged.size, merged.target.gather(1, origin)
    given, given_size = session(model).run(None, {"x": x.numpy(), "size": np.ones((2, 40), np.float32)})
    np.testing.assert_allclose(given, y[torch.arange(2)[:, None], origin], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(given_size, size)


def test_variant_is_chosen_by_k_alone() -> None:
    chosen = {k: ops.variant_key("LocalMerge", attributes(k, r=1)) for k in (0, 1, 2, 32, 33, 10_000)}
    assert chosen == {0: "dense", 1: "k1", 2: "band", 32: "band", 33: "dense", 10_000: "dense"}
    assert ops.function("LocalMerge", attributes(1, r=1)) == ops.function(
        "LocalMerge", attributes(1, ratio=(1, 4))
    )
