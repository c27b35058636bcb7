"""Chronos-Bolt with patches that overlap, or leave steps out between them; the usual ones are everywhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from chronos import ChronosBoltPipeline
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tsmerge_export as tsm
from tests.families.harness import NOTHING, Subject, describe
from tests.families.subjects import OVERLAPPING, patched
from tests.forecast.upstream import walks
from tsmerge_export import families
from tsmerge_export.errors import UsageError
from tsmerge_export.inspection.inspect import inspect_file
from tsmerge_export.settings.config import MergeConfig

pytestmark = pytest.mark.filterwarnings("ignore:the model was made for", "ignore:We recommend")


UNEVEN = Subject("chronos-bolt", patched(8, 3, context_length=100))
APART = Subject("chronos-bolt", patched(4, 6, context_length=100))
SUBJECTS = {"16 by 8": OVERLAPPING, "8 by 3": UNEVEN, "4 by 6": APART}
EACH = pytest.mark.parametrize(
    "name", ["16 by 8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("8 by 3", "4 by 6"))]
)
NONE, RATIO = MergeConfig(method="none"), MergeConfig(ratio="1/4")
LENGTHS = (1, 2, 7, 8, 15, 16, 17, 31, 48, 99, 100, 101, 199, 200, 201, 333)


@pytest.mark.parametrize("merge", [NONE, RATIO], ids=describe)
@EACH
def test_forecasts_are_upstreams_at_every_length(name: str, merge: MergeConfig) -> None:
    """Shorter than a patch, off its multiples, beyond the context, beyond the horizon, with gaps."""
    subject = SUBJECTS[name]
    ours, theirs = tsm.pipeline(subject.bundle(merge), threads=1), ChronosBoltPipeline(subject.model)
    for length in LENGTHS:
        series = walks(2, length, seed=length)
        series[:, -1] = 1.5
        for steps in (5, 30):
            with tsm.merging(subject.model, merge):
                want = theirs.predict(torch.from_numpy(series), steps).numpy()
            got = ours.predict(series, steps)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@EACH
def test_parity(name: str) -> None:
    SUBJECTS[name].assert_parity(RATIO)


def test_nothing_removed_is_bit_identical() -> None:
    OVERLAPPING.assert_bit_identical(NOTHING[0])


def test_inspect_counts_overlapping_patches() -> None:
    """100 steps, 112 with the padding, hold 13 patches of 16 that lie 8 apart, and there is a REG token."""
    found = inspect_file(OVERLAPPING.built(RATIO).merged, batch=2, length=100)
    assert [(merge["before"], merge["after"]) for merge in found["merges"]] == [(14, 11), (11, 9)]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        OVERLAPPING.model(context=torch.ones(2, 100))
    assert found["flops"]["unmerged"] == counter.get_total_flops()


@pytest.mark.parametrize(("size", "stride"), [(16, 0), (16, -8), (0, 8), (16, 8.5), ("16", 8), (16, True)])
def test_patches_that_make_no_sense(size: Any, stride: Any) -> None:
    with pytest.raises(UsageError, match=r"config.json: chronos_config.input_patch_(size|stride) is "):
        families.get("chronos-bolt").build(patched(size, stride))
