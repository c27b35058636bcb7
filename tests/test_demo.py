"""The trained models that ship, and the demo of them."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

import tsmerge_export as tsm
from tsmerge_export import demo
from tsmerge_export.cli.parser import export_parser
from tsmerge_export.tools.distill.windows import prepare
from tsmerge_export.verify.data import Windows, read_table, rolling_windows

CONTEXT, HORIZON = 1024, 64


def measured() -> Windows:
    """The windows that an export measures merge cost on, where no data are given."""
    return rolling_windows(read_table(demo.SAMPLE_SERIES), CONTEXT, HORIZON, limit=8)


def test_the_distilled_model_is_for_half_of_the_tokens() -> None:
    loaded = tsm.load_model(demo.CHRONOS_BOLT_HALF)
    assert loaded.trained is not None
    assert loaded.trained.merge == tsm.MergeConfig("local", k=1, ratio="1/2")
    assert loaded.trained.unmerged is not None and loaded.trained.unmerged > 0.5


def test_half_of_the_tokens_hardly_change_its_forecast() -> None:
    """Merged it is near the model that taught it, which is far off when it merges as much; on series of this test."""
    steps = torch.arange(1024.0)
    context = torch.stack(
        [
            torch.sin(2 * torch.pi * (steps + shift) / 24) + steps * slope
            for shift, slope in ((0, 0), (7, 1e-3))
        ]
    )
    half = tsm.MergeConfig("local", k=1, ratio=Fraction(1, 2))
    original, distilled = (tsm.load_model(path).model for path in (demo.CHRONOS_BOLT, demo.CHRONOS_BOLT_HALF))
    with torch.no_grad():
        expected = original(context=context).quantile_preds
        with tsm.merging(original, half):
            as_it_is = original(context=context).quantile_preds
        with tsm.merging(distilled, half):
            found = distilled(context=context).quantile_preds
    assert (found - expected).abs().mean() < 0.5 * (as_it_is - expected).abs().mean()


def test_make_demo_compares_the_distilled_model_with_its_original() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    folder = re.findall(r"^DEMO = (.+)$", makefile, re.MULTILINE)[0]
    line = re.findall(r"^demo:.*\n\t\$\(BIN\)/tsmerge-export (.+)$", makefile, re.MULTILINE)[0]
    args = export_parser().parse_args(shlex.split(line.replace("$(DEMO)", folder)))
    root = Path(__file__).parents[1]
    assert root / args.model == demo.CHRONOS_BOLT_HALF
    assert root / args.original == demo.CHRONOS_BOLT
    # By what it was trained for, on the sample.
    assert (args.merge, args.ratio, args.data) == (None, None, None)


def test_the_demo_is_measured_on_what_training_has_not_seen() -> None:
    """Weights were learnt on the first 60 % of the sample and chosen on the next 20 %; the targets lie behind both."""
    table = read_table(demo.SAMPLE_SERIES)
    cut, rows = measured(), len(table.values)
    assert rows == 2016
    count = cut.target.shape[1]
    assert count == 6
    first = rows - count * HORIZON
    assert first >= int(0.8 * rows)
    for column in range(3):
        assert np.array_equal(cut.target[column].ravel(), table.values[first:, column])
    (scored,) = prepare(
        [table],
        horizon=HORIZON,
        longest=CONTEXT,
        context=None,
        any_length=True,
        limit=None,
        test_limit=None,
        seed=0,
    ).scored
    assert np.array_equal(scored.test.target, cut.target)
    chosen_on = scored.validation.target[:, -1]
    assert all(np.array_equal(chosen_on[c], table.values[1612 - HORIZON : 1612, c]) for c in range(3))
    assert first >= 1612


def test_the_demo_costs_at_most_three_per_cent() -> None:
    """Errors of the eager models, in numpy: the median over columns of the changes of MSE and pinball loss."""
    cut = measured()
    original, distilled = (tsm.load_model(path).model for path in (demo.CHRONOS_BOLT, demo.CHRONOS_BOLT_HALF))
    levels = np.arange(1, 10)[:, None] / 10

    def errors(model: torch.nn.Module) -> np.ndarray:
        """``[column, metric]``"""
        found = []
        for context, target in zip(cut.context, cut.target, strict=True):
            with torch.no_grad():
                quantiles = model(context=torch.from_numpy(context)).quantile_preds.double().numpy()
            gap = target[:, None] - quantiles
            found.append([(gap[:, 4] ** 2).mean(), np.maximum(levels * gap, (levels - 1) * gap).mean()])
        return np.array(found)

    before = errors(original)
    with tsm.merging(distilled):
        after = errors(distilled)
    assert (np.median(after / before, axis=0) < 1.03).all()
    # Nobody would run the distilled weights unmerged: they are no rival.
    assert (np.median(errors(distilled) / before, axis=0) > 2).all()
