"""PitomeMerge and SsmMerge of the library for CUDA's provider, kernels emulated: beside the random problems of
``test_native_cuda``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.cases import Case, untouched
from tests.methods.pitome.cases import PitomeCase
from tests.methods.ssm.cases import SsmBranchCase, SsmCase
from tests.ops.harness import difference, merge_model, native_form, run_case, session
from tests.plugins.native import draw
from tsmerge_export.methods.pitome.reference import pitome_merge
from tsmerge_export.methods.ssm.reference import ssm_merge

_AMOUNT = {"r": 0, "ratio_num": 0, "ratio_den": 1, "min_tokens": 0, "protect_first": 0, "protect_last": 0}
PITOME = {**_AMOUNT, "margin": 0.5, "alpha": 1.0, "energy": 0}
SSM = {**_AMOUNT, "prune_num": 1, "prune_den": 3}
BRANCHES = {**SSM, "residual_num": 1, "residual_den": 2}

each_operator = pytest.mark.parametrize(
    ("op_type", "plain"), [("PitomeMerge", PITOME), ("SsmMerge", SSM), ("SsmMerge", BRANCHES)]
)


def _run(
    plugin: Path | None, op_type: str, settings: Mapping[str, float], x: Any, **feed: Any
) -> list[np.ndarray]:
    model = merge_model(settings, op_type=op_type)
    form = model if plugin is None else native_form(model)
    feed = {"x": x, "metric": x, "size": np.ones(x.shape[:2], np.float32)} | feed
    return session(form, plugin=plugin).run(None, feed)


def _long(of: type[Case], tokens: int) -> Case:
    setting = next(number for number, one in enumerate(of.table) if one["ratio"] == (1, 4))
    return of(
        batch=2, tokens=tokens, features=4, metric_features=0, kind="lattice", padding="random", spoil="none",
        dtype="float32", setting=setting, seed=tokens,
    )  # fmt: skip


@pytest.mark.parametrize("of", [PitomeCase, SsmCase, SsmBranchCase])
def test_rows_longer_than_a_block(of: type[Case], emulated_operators: Path) -> None:
    """Many equal tokens, so that nothing but indices decides; a quarter of 1,100 goes."""
    case = _long(of, 1100)
    assert difference(case, run_case(case, emulated_operators)) in (None, "flip")


def test_whole_steps_and_the_margin_decide(emulated_operators: Path) -> None:
    """By search: energies without rounding choose others, and so does a cosine on the margin that counts as below."""
    case = draw(177, PitomeCase)
    assert difference(case, run_case(case, emulated_operators)) in (None, "flip")


@pytest.mark.slow
def test_keys_beyond_shared_memory(emulated_operators: Path) -> None:
    """More links than their keys have room for on the chip."""
    x = np.zeros((1, 8300, 2), np.float32)
    x[0, :, 0] = 1 + np.random.default_rng(3).integers(0, 40, 8300)
    x[0, :, 1] = 1 + np.arange(8300) % 7
    found = _run(emulated_operators, "SsmMerge", {**SSM, "ratio_num": 1, "ratio_den": 4}, x)
    want = ssm_merge(torch.from_numpy(x), ratio="1/4", prune_share="1/3")
    np.testing.assert_array_equal(found[2], want.kept)
    np.testing.assert_array_equal(found[3], want.target)
    np.testing.assert_allclose(found[0], want.y, rtol=1e-5)


def test_energies_that_are_not_finite_are_none(emulated_operators: Path) -> None:
    """An energy sums what no float32 holds only where alpha and what is alike are far apart; NaN has none at all."""
    x = np.random.default_rng(1).standard_normal((1, 12, 3)).astype(np.float32)
    x[0, 3] = math.nan
    for alpha in (0.0, 1e6):
        found = _run(emulated_operators, "PitomeMerge", {**PITOME, "r": 5, "alpha": alpha}, x)
        want = pitome_merge(torch.from_numpy(x), r=5, margin=0.5, alpha=alpha)
        np.testing.assert_array_equal(found[2], want.kept)
        np.testing.assert_array_equal(found[3], want.target)
        assert 3 in found[2]


@each_operator
@pytest.mark.parametrize("tokens", [1, 12])
def test_nothing_to_merge_is_the_identity(
    op_type: str, plain: dict[str, float], tokens: int, emulated_operators: Path
) -> None:
    x, size = untouched(tokens)
    settings = {**plain, "r": 9, "min_tokens": 50}
    y, size_out, kept, target = _run(emulated_operators, op_type, settings, x, size=size)
    assert y.tobytes() == x.tobytes()
    assert size_out.tobytes() == size.tobytes()
    assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


@each_operator
def test_a_batch_of_no_rows(op_type: str, plain: dict[str, float], emulated_operators: Path) -> None:
    found = _run(emulated_operators, op_type, {**plain, "r": 3}, np.zeros((0, 8, 3), np.float32))
    assert [value.shape for value in found] == [(0, 5, 3), (0, 5), (0, 5), (0, 8)]


@each_operator
def test_a_ratio_that_is_chosen_at_run_time(
    op_type: str, plain: dict[str, float], emulated_operators: Path
) -> None:
    """As the functions do; the ratio that the node was made for does not count."""
    x = np.random.default_rng(5).integers(-4, 5, (2, 31, 4)).astype(np.float32)
    settings = {**plain, "ratio_num": 1, "ratio_den": 7, "run_time": 1}
    for ratio in (0.0, 1 / 3):
        chosen = np.array(ratio, np.float32)
        given, want = (
            _run(plugin, op_type, settings, x, merge_ratio=chosen) for plugin in (emulated_operators, None)
        )
        for index in (1, 2, 3, 4):
            np.testing.assert_array_equal(given[index], want[index])
        np.testing.assert_allclose(given[0], want[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op_type", "settings", "why"),
    [
        ("PitomeMerge", {**PITOME, "margin": 1.5}, "margin = 1.500000 must be from -1 to 1"),
        ("PitomeMerge", {**PITOME, "alpha": -1.0}, "alpha = -1.000000 must be from 0 to 1000000"),
        ("PitomeMerge", {**PITOME, "energy": 2}, "energy = 2 must be from 0 to 1"),
        ("PitomeMerge", {**PITOME, "r": 1, "ratio_num": 1, "ratio_den": 4}, "excludes r"),
        ("SsmMerge", {**SSM, "prune_num": 4}, "a share to prune must be at most 1"),
        ("SsmMerge", {**BRANCHES, "residual_num": 3}, "a share to prune must be at most 1"),
    ],
)
def test_attributes_out_of_range_are_an_error(
    op_type: str, settings: dict[str, float], why: str, emulated_operators: Path
) -> None:
    model = native_form(merge_model(PITOME if op_type == "PitomeMerge" else SSM, op_type=op_type))
    node = next(node for node in model.graph.node if node.op_type == op_type)
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in settings.items())
    with pytest.raises(Exception, match=why):
        session(model, plugin=emulated_operators)


def test_a_residual_needs_a_metric_as_wide(emulated_operators: Path) -> None:
    x = np.zeros((1, 8, 3), np.float32)
    with pytest.raises(Exception, match="a metric of the width of x"):
        _run(emulated_operators, "SsmMerge", {**BRANCHES, "r": 2}, x, metric=x[..., :2])
