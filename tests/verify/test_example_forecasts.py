"""The forecasts on the page are those of the bundle's files: of its forecaster, number by number, without the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

import tsmerge_export as tsm
from tests.families.harness import Subject
from tests.models import TST
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.example import Example
from tsmerge_export.compile.build import Built
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.typed import read
from tsmerge_export.verify import example
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.cost import ColumnCost, CostReport
from tsmerge_export.verify.data import Table, rolling_windows
from tsmerge_export.verify.decoded import forecasts_by
from tsmerge_export.verify.speed import SpeedReport

NONE, RATIO = MergeConfig(method="none"), MergeConfig(ratio="1/4")
SEED, WINDOWS, CONTEXT = 5, 3, 60
SUBJECTS = {
    "chronos-t5": Subject("chronos-t5"),
    "time-series-transformer": Subject("time-series-transformer", TST),
}


def parts(subject: Subject, bundle: Bundle) -> list[Built]:
    return [
        Built(part, bundle.component(part.name).file, bundle.component(part.name).file, None, RewriteReport())
        for part in subject.family.components(subject.model)
    ]


@pytest.mark.parametrize("name", SUBJECTS)
def test_forecasts_are_those_of_the_forecaster(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = SUBJECTS[name]
    unmerged, merged = (Bundle.open(subject.bundle(merge)) for merge in (NONE, RATIO))
    horizon = subject.family.horizon(subject.model)
    steps = np.arange(12 * horizon + CONTEXT)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.3, (len(steps), 2))
    table = Table("x.csv", ("a", "b"), np.sin(steps / np.array([3.0, 7.0])) + 2 + noise)
    columns = tuple(ColumnCost(c, {"mse": 1.0}, {"mse": after}, {}) for c, after in (("a", 1.5), ("b", 1.25)))
    cost = CostReport(
        "x.csv", WINDOWS, CONTEXT, horizon, 24, columns, SpeedReport(2, CONTEXT, 1, 5, 2.0, 1.0), ()
    )
    checks = Checks(threads=1, seed=SEED)
    first, *_ = files = parts(subject, merged)
    forecasts = forecasts_by(subject.family, subject.model, files, checks)

    def no_module(self: nn.Module, *_: Any, **__: Any) -> None:
        raise AssertionError(f"{type(self).__name__} of the original model was run")

    with monkeypatch.context() as patch:
        patch.setattr(nn.Module, "__call__", no_module)
        made = example.make(
            subject.family, first.component, subject.model, parts(subject, unmerged)[0].merged, first.merged,
            table, cost, checks, forecasts=forecasts,
        )  # fmt: skip
    found = read(Example, made, "report.json")
    assert [one.column for one in found.series] == ["b", "a"]
    assert found.levels == (0.1, 0.5, 0.9)
    cut = rolling_windows(table, CONTEXT, horizon, limit=WINDOWS)
    assert cut.context.shape[1] == WINDOWS and (found.seed, found.first_series) == (SEED, WINDOWS - 1)
    for one in found.series:
        column = table.columns.index(one.column)
        # The last rows of the table, which the page says they are.
        assert one.first_row == len(table.values) - horizon
        np.testing.assert_allclose(one.target, table.values[-horizon:, column], rtol=1e-5)
        np.testing.assert_allclose(
            one.history, table.values[-horizon - CONTEXT : -horizon, column], rtol=1e-5
        )
        for side, bundle in ((one.unmerged, unmerged), (one.merged, merged)):
            forecaster: Any = tsm.pipeline(bundle, threads=1)
            options = {"quantile_levels": list(found.levels), "seed": SEED}
            # All windows of the cost at once; and the last one alone, under its number.
            every, _ = forecaster.predict_quantiles(cut.context[column], horizon, **options)
            alone, _ = forecaster.predict_quantiles(
                cut.context[column, -1:], horizon, first_series=WINDOWS - 1, **options
            )
            for want in (every[-1], alone[0]):
                got = np.stack([side.low, side.median, side.high], axis=1).astype(float)
                np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5 * np.abs(want).max())
        assert one.unmerged != one.merged
