"""Series that no verdict is taken on: what a choice of low precision does to forecasts of them, to choose by, and the
values inside a model that forecasts them, to find scales by."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Family
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import (
    Table,
    Windows,
    context_before,
    count_windows,
    enough_rows,
    rolling_windows,
    target_rows,
)
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.quality import increase
from tsmerge_export.verify.threads import torch_threads
from tsmerge_export.verify.watched import WatchedSession
from tsmerge_export.verify.window_errors import Forecasts, next_to_nothing, run_named, window_errors

#: Of the rows before the tested ones, the last ones: so many are forecast.
_SHARE = 0.5
#: Windows of each column on which single products are compared.
_SOME = 3
_METRIC = "wql"
#: Shown the inputs and outputs of a run: (the component, values by name).
Shown = Callable[[str, Mapping[str, npt.NDArray[Any]]], None]


class Calibration(Protocol):
    """Series to try choices on, with the float32 files that these are held against."""

    @property
    def data(self) -> str:
        """What the series are, in words."""

    @property
    def windows(self) -> int | None:
        """How many of each column; None where they are no windows of a table."""

    @property
    def columns(self) -> int | None:
        """How many."""

    @property
    def digest(self) -> str:
        """SHA-256 of the series and of what is drawn besides."""

    def observe(self, watched: Sequence[Built], shown: Shown) -> None:
        """Run all of the series through float32 files of all components, and show what every run reads and makes.

        Args:
            watched: the float32 files, with more outputs; a forecast goes through them as through the twins.
        """

    def moved(self, low: Sequence[Built]) -> float:
        """How far the outputs of files below float32, all components, are from the twins', on some of the series; see
        :class:`~tsmerge_export.bundle.precision.ProductEffect`."""

    def bound(self, low: Sequence[Built]) -> float:
        """What a limit is held against, per cent; infinite where it cannot be told."""


class WindowCalibration:
    """Rolling windows of a family, all before the first target of the verdicts.

    Args:
        family, model: for what of a forecast no file does. twins: all components in float32.
        table: all rows; the last fifth, which the verdicts are taken on, is not looked at.
        limit: at most so many windows per column.

    Raises:
        UsageError: there is no room for as many windows as a bound takes.
    """

    def __init__(
        self,
        family: Family,
        model: nn.Module,
        twins: Sequence[Built],
        table: Table,
        checks: Checks,
        limit: int = 16,
    ) -> None:
        self._family, self._model, self._checks = family, model, checks
        self._cut = calibration_windows(table, family.context(model), family.horizon(model), limit)
        some = np.linspace(0, self._cut.target.shape[1] - 1, _SOME).round().astype(int)
        self._some = replace(self._cut, context=self._cut.context[:, some], target=self._cut.target[:, some])
        self._twins = twins
        self.data = f"{table.name}, before its last fifth"
        self.columns, self.windows = self._cut.target.shape[:2]

    @cached_property
    def digest(self) -> str:
        """Of the contexts, and of the seed by which samples are drawn."""
        found = hashlib.sha256(np.ascontiguousarray(self._cut.context).tobytes())
        found.update(str((self._cut.context.shape, self._checks.seed)).encode())
        return found.hexdigest()

    def observe(self, watched: Sequence[Built], shown: Shown) -> None:
        """Forecasts of all windows: a decoder is seen at every step of every path, with what was drawn before."""

        def opened(item: Built) -> WatchedSession:
            session = self._checks.forecaster(item.merged, quiet=True)
            names = {spec.name for spec in item.component.outputs}
            return WatchedSession(session, names, partial(shown, item.component.name))

        first, forecast = (
            opened(watched[0]),
            decoded_by(self._family, self._model, watched, self._checks, opened=opened),
        )
        with torch_threads(self._checks.threads):
            Forecasts(self._family, self._model, first.run, self._checks.seed, forecast).quantiles(self._cut)

    def moved(self, low: Sequence[Built]) -> float:
        """The distance of the forecasts in standard deviations, of a few windows per column: it scatters little."""
        found, known = self._forecasts(low, self._some), np.isfinite(self._few_float32)
        off = np.where(known, found, 0).astype(np.float64) - np.where(known, self._few_float32, 0)
        square = float(np.square(off / self._cut.deviation[:, None, None, None]).sum() / max(known.sum(), 1))
        return math.sqrt(square) if math.isfinite(square) else math.inf

    def bound(self, low: Sequence[Built]) -> float:
        """What the weighted quantile loss rises by at most, with 90 % confidence."""
        errors = self._errors_of(self._forecasts(low, self._cut))
        return increase(errors, self._errors, next_to_nothing(_METRIC, self._cut), self._checks.seed).upper

    @cached_property
    def _few_float32(self) -> npt.NDArray[np.float32]:
        return self._forecasts(self._twins, self._some)

    @cached_property
    def _errors(self) -> npt.NDArray[np.float64]:
        return self._errors_of(self._forecasts(self._twins, self._cut))

    def _forecasts(self, built: Sequence[Built], cut: Windows) -> npt.NDArray[np.float32]:
        """``[C, W, Q, H]``"""
        names = [spec.name for spec in built[0].component.outputs]
        run = partial(run_named, self._checks.open(built[0].merged, timed=True), names)
        forecast = decoded_by(self._family, self._model, built, self._checks)
        with torch_threads(self._checks.threads):
            return Forecasts(self._family, self._model, run, self._checks.seed, forecast).quantiles(cut)

    def _errors_of(self, quantiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return window_errors(quantiles, self._family.quantile_levels(self._model), self._cut)[_METRIC]


def calibration_windows(table: Table, longest: int, horizon: int, limit: int | None) -> Windows:
    """Windows whose targets are all before those of the verdicts, in the last half of the rows there.

    Args:
        table: all rows. longest: context of the model; it is shorter where that leaves no room for targets.

    Raises:
        UsageError: fewer than a bound of 90 % confidence takes.
    """

    def room(rows: int) -> tuple[int, int, int]:
        """Rows before the tested ones, a context, and windows."""
        seen = rows - target_rows(rows, horizon)
        context = context_before(seen, longest, horizon, _SHARE)
        return seen, context, count_windows(seen, context, horizon, _SHARE) if seen > context else 0

    seen, context, windows = room(len(table.values))
    if windows < LEAST_WINDOWS:
        enough = enough_rows(len(table.values), lambda rows: room(rows)[2], LEAST_WINDOWS)
        raise UsageError(
            f"{table.name}: has {len(table.values)} rows; calibration (--precision int8-static, --keep-precise auto) "
            f"takes {LEAST_WINDOWS} windows of {horizon} steps before the last fifth, which is for the verdict: give "
            f"at least {enough} rows in --data"
        )
    before = Table(table.name, table.columns, table.values[:seen])
    return rolling_windows(before, context, horizon, limit=limit, share=_SHARE)
