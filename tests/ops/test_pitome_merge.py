"""The bodies of PitomeMerge: against the reference in ONNX Runtime, and the same in the other runtimes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
import torch

from tests.cases import untouched
from tests.ops.harness import add_functions, merge_model, session
from tsmerge_export import ops
from tsmerge_export.errors import UsageError
from tsmerge_export.merge import pitome_merge

GOOD: dict[str, int | float] = {
    "r": 0, "ratio_num": 1, "ratio_den": 4, "min_tokens": 0, "protect_first": 0, "protect_last": 0, "margin": 0.5,
    "alpha": 1.0, "energy": 0,
}  # fmt: skip


def model(dtype: str = "float32", opset: int = 18, **change: float) -> onnx.ModelProto:
    return merge_model({**GOOD, **change}, dtype, opset, "PitomeMerge")


def feeds(x: np.ndarray, size: np.ndarray | None = None) -> dict[str, np.ndarray]:
    return {"x": x, "metric": x, "size": np.ones(x.shape[:2], np.float32) if size is None else size}


@pytest.mark.parametrize("energy", [0, 1])
@pytest.mark.parametrize("tokens", [1, 2, 3, 6, 33])
def test_nothing_to_merge_is_the_identity(energy: int, tokens: int) -> None:
    x, size = untouched(tokens)
    for rest in ({"r": 0}, {"r": 50, "min_tokens": 50}, {"r": 50, "protect_first": 20, "protect_last": 20}):
        y, size_out, kept, target = session(model(ratio_num=0, energy=energy, **rest)).run(
            None, feeds(x, size)
        )
        assert y.tobytes() == x.tobytes()
        assert size_out.tobytes() == size.tobytes()
        assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


def _largest(tmp_path: Path, **change: float) -> int:
    """Elements of the largest value in a run over 512 tokens, from ONNX Runtime's profile."""
    run = session(model(**change), enable_profiling=True, profile_file_prefix=str(tmp_path / "run"))
    run.run(None, feeds(np.random.default_rng(0).standard_normal((1, 512, 8)).astype(np.float32)))
    shapes = [
        dims
        for entry in json.loads(Path(run.end_profiling()).read_text())
        for shape in entry.get("args", {}).get("output_type_shape", [])
        for dims in shape.values()
    ]
    return max(int(np.prod(dims)) for dims in shapes)


def test_nothing_to_merge_compares_nothing(tmp_path: Path) -> None:
    assert _largest(tmp_path) == 512 * 512
    assert _largest(tmp_path, min_tokens=512) == 512 * 8


def test_many_into_one_is_right_and_repeatable_with_threads() -> None:
    """Duplicate destinations, and equal tokens among 1,200 others: energies tie whatever the order of sums."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 1200, 6)).astype(np.float32)
    x[0, ::3] = [1, 1, 1, 1, 0, 0]  # norm 2: cosines with each other are exact
    run = session(model(ratio_num=1, ratio_den=6, margin=0.2), threads=4)
    first = run.run(None, feeds(x))
    expected = pitome_merge(torch.from_numpy(x), ratio="1/6", margin=0.2)
    np.testing.assert_array_equal(first[3], expected.target)
    np.testing.assert_allclose(first[0], expected.y, rtol=1e-4, atol=1e-5)
    # The 400 equal tokens alternate by index: a's are tokens 0, 6, 12, ...
    assert sorted(set(range(1200)) - set(first[2][0].tolist())) == list(range(0, 1200, 6))
    for _ in range(5):
        for one, again in zip(first, run.run(None, feeds(x)), strict=True):
            assert one.tobytes() == again.tobytes()


def test_energies_of_equal_tokens_tie_in_every_row() -> None:
    """Sums in float32 would differ by their order, and put some of the equal tokens on the other side of a step."""
    run = session(model(ratio_num=1, ratio_den=6, margin=0.2))
    for tokens, seed in product((600, 1200), range(60)):
        x = np.random.default_rng(seed).standard_normal((1, tokens, 6)).astype(np.float32)
        x[:, ::3] = [1, 1, 1, 1, 0, 0]
        kept = run.run(None, feeds(x))[2][0].tolist()
        assert sorted(set(range(tokens)) - set(kept)) == list(range(0, tokens, 6))


def test_subnormal_and_largest_neighbours_of_padding_keep_their_bits() -> None:
    x = np.array([[[1.0, 2.0], [1e-45, 3.4028235e38], [np.nan, 1.0], [np.inf, -0.0]]], np.float32)
    run = session(model(ratio_num=0, r=2))
    y, _, kept, _ = run.run(None, feeds(x, np.array([[0, 1, 0, 1]], np.float32)))
    # Padding 0 goes into padding 2; token 1 or 3, which no cosine compares, into the other.
    assert kept[0, 0] == 2 or kept[0, 0] == 1
    reference = pitome_merge(torch.from_numpy(x), size=torch.tensor([[0.0, 1, 0, 1]]), r=2, margin=0.5)
    assert kept.tolist() == reference.kept.tolist()
    assert y.tobytes() == reference.y.numpy().tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margin": 1.5}, "margin=1.5 must be a number from -1 to 1"),
        ({"alpha": -0.5}, "alpha=-0.5 must be a number from 0"),
        ({"energy": 2}, "energy=2 must be a whole number from 0 to 1"),
        ({"r": 3}, "r and ratio_num exclude each other"),
        ({"k": 1}, "no attribute 'k'"),
    ],
)
def test_bad_attributes_are_named(change: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ops.function("PitomeMerge", {**GOOD, **change})


def test_variant_is_chosen_by_the_energy_alone() -> None:
    assert ops.variant_key("PitomeMerge", GOOD) == "elu"
    assert ops.variant_key("PitomeMerge", {**GOOD, "energy": 1}) == "gaussian"
    assert ops.function("PitomeMerge", GOOD) == ops.function(
        "PitomeMerge", {**GOOD, "margin": 0.1, "alpha": 2.0}
    )


def test_both_energies_live_in_one_model() -> None:
    calls, value = [], ("x", "size")
    for step, energy in product(range(2), range(2)):
        name = f"{step}{energy}"
        settings = ", ".join(f"{k} = {v}" for k, v in {**GOOD, "energy": energy}.items())
        calls.append(
            f"y{name}, s{name}, k{name}, t{name} = tsmerge.PitomeMerge<{settings}>({value[0]}, {value[0]}, {value[1]})"
        )
        value = (f"y{name}", f"s{name}")
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>\n'
        f"g (float[B, N, D] x, float[B, N] size) => (float[B, M, D] {value[0]}, float[B, M] {value[1]}) "
        f"{{ {' '.join(calls)} }}"
    )
    add_functions(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert sorted(f.overload for f in proto.functions) == ["elu", "gaussian"]
    x = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(5))
    y, size = x, torch.ones(2, 40)
    for energy_name in ("elu", "gaussian") * 2:
        merged = pitome_merge(y, size=size, ratio="1/4", margin=0.5, energy=energy_name)
        y, size = merged.y, merged.size
    given_y, given_size = session(proto).run(None, {"x": x.numpy(), "size": np.ones((2, 40), np.float32)})
    np.testing.assert_allclose(given_y, y, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(given_size, size)
