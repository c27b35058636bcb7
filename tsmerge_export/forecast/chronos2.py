"""Chronos-2: quantiles of groups of series, with covariates; chronos-forecasting's ``Chronos2Pipeline`` on arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.notes import note
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs as check
from tsmerge_export.forecast.base import LEVELS, Floats, alike
from tsmerge_export.forecast.long_horizon import masses, weighted_quantiles
from tsmerge_export.forecast.quantile_models import QuantileForecaster
from tsmerge_export.forecast.tasks import Task, are_plain, as_tasks, check_scaled, named

if TYPE_CHECKING:
    import pandas as pd

    from tsmerge_export.forecast.frame import Columns, Panel, Saying

Many = list[Floats]


@dataclass(frozen=True)
class _Group:
    """Rows that attend to each other.

    Attributes:
        context: ``[V, L]``, shorter series missing on their left. future: ``[V, H]``, NaN is not known.
        tasks: index and rows of each task in it.
    """

    context: Floats
    future: Floats
    tasks: tuple[tuple[int, slice], ...]


class Chronos2(QuantileForecaster):
    """A bundle of Chronos-2; see :func:`tsmerge_export.pipeline`."""

    takes_covariates = True

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        if not isinstance(self._settings.get("patch_size"), int):
            raise UsageError(f"{bundle.path}: its pipeline settings are incomplete; export it again")

    def predict(  # type: ignore[override]
        self,
        inputs: Any,
        prediction_length: int | None = None,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        limit_prediction_length: bool = False,
        *,
        max_output_patches: int | None = None,
        unrolled_quantiles: Sequence[float] | None = None,
        after_batch: Callable[[], Any] | None = None,
        seed: int | None = None,
        ratio: Any = None,
    ) -> Many | Floats:
        """Quantiles ``[variates, len(quantiles), prediction_length]`` float32 of each input, as a list.

        For one series, or a 2-D array, which upstream does not take, one array ``[B, len(quantiles),
        prediction_length]``, as of every family. A merging model merges what it reads together: a group is one row of
        its batch, with one decision for all of its series.

        Args:
            inputs: a 3-D array ``[B, variates, steps]``; or a list of series ``[steps]`` and ``[variates, steps]`` of
                any lengths; or a list of dicts: ``target`` (such a series), ``past_covariates`` (name -> ``[steps]``)
                and ``future_covariates`` (name, also in the past -> ``[prediction_length]``), all with the same
                variates and names. Covariates are numbers, or categories of any other kind. NaN is missing.
            prediction_length: steps; the model's own for None. Beyond that, quantiles are taken for paths that go on.
            batch_size: with ``cross_learning``, rows (variates and covariates) from which on a group is full; without,
                no forecast depends on it, and ``memory`` says how many are run at once.
            context_length: steps to read; the model's own, which is also the most, for None.
            cross_learning: the series of a batch are one group.
            limit_prediction_length: refuse horizons beyond the model's own.
            max_output_patches: of one run, at most the model's own (None).
            unrolled_quantiles: levels of the paths, among the model's own; those of 0.1 to 0.9 that are for None.
            after_batch: called after each run.
            seed: without effect, there is nothing random.
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 (nothing merges) to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: inputs or numbers that make no sense.
        """
        steps = check.prediction_length(prediction_length, self._horizon, limit_prediction_length)
        check.seed(0 if seed is None else seed)
        most = self._horizon // self._patch
        patches = (
            most
            if max_output_patches is None
            else check.whole("max_output_patches", max_output_patches, 1, most)
        )
        if after_batch is not None and not callable(after_batch):
            raise UsageError(f"after_batch {after_batch!r} cannot be called; give a function, or None")
        context = self._own_context(context_length)
        plain = are_plain(inputs)
        tasks = as_tasks(check.as_rows(inputs, context) if plain else inputs, steps, context)
        for index, task in enumerate(tasks):
            for row, values in enumerate(task.context):
                self._has_variance(values, named(index, row, task.targets))
            check_scaled(task, index)
        if steps > self._horizon:
            note(f"the model was made for {self._horizon} steps; {steps} may be worse")
        size = check.whole("batch_size", batch_size, 1, 2**31)
        groups = (
            _joined(tasks, size) if cross_learning else [_group([(n, one)]) for n, one in enumerate(tasks)]
        )
        run = _Run(self.at(ratio), steps, patches, self._paths(unrolled_quantiles), after_batch)
        found = run(groups, len(tasks))
        return np.concatenate(found) if plain else found

    def predict_quantiles(  # type: ignore[override]
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        **predict_kwargs: Any,
    ) -> tuple[Many, Many] | tuple[Floats, Floats]:
        """Quantiles ``[variates, H, len(levels)]`` and the median ``[variates, H]`` of each input, as two lists.

        For one series, or a 2-D array, two arrays ``[B, H, len(levels)]`` and ``[B, H]``. The arguments are those of
        :meth:`predict`; levels between the model's own are interpolated, levels outside get its lowest or highest.
        """
        levels = check.quantile_levels(quantile_levels)
        found = self.predict(inputs, prediction_length, **predict_kwargs)
        self._tell_beyond(levels)
        if isinstance(found, list):
            return [self._at_levels(one, levels) for one in found], [self._points(one) for one in found]
        return self._at_levels(found, levels), self._points(found)

    def predict_df(  # type: ignore[override]
        self,
        df: pd.DataFrame,
        future_df: pd.DataFrame | None = None,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str | Sequence[str] = "target",
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        batch_size: int = 256,
        context_length: int | None = None,
        cross_learning: bool = False,
        validate_inputs: bool = True,
        freq: str | None = None,
        **predict_kwargs: Any,
    ) -> pd.DataFrame:
        """Forecast the series of a long data frame, as ``Chronos2Pipeline.predict_df`` does.

        Args:
            df: a row per series and time; columns that are neither id, timestamp nor target are covariates.
            future_df: covariates whose future is known: the same ids, ``prediction_length`` rows of each at the times
                that follow, and columns of ``df``.
            target: a column, or several that are forecast together.
            id_column, timestamp_column, validate_inputs, freq: see :meth:`Forecaster.predict_df`.
            prediction_length, quantile_levels, batch_size, context_length, cross_learning, predict_kwargs: see
                :meth:`predict_quantiles`.

        Returns:
            A frame of pandas, ``prediction_length`` rows per series and target.

        Raises:
            UsageError, MissingDependencyError: see :meth:`Forecaster.predict_df`.
        """
        from tsmerge_export.forecast import frame

        limit = predict_kwargs.pop("limit_prediction_length", False)
        steps = check.prediction_length(prediction_length, self._horizon, limit)
        if target is None:
            raise UsageError("target is None, not the name of a column, nor a list of names")
        # A name need not be a string.
        targets = target if isinstance(target, str) else tuple(target) if np.iterable(target) else (target,)
        columns = frame.Columns(id_column, timestamp_column, targets)
        panel = self.read_panel(df, columns, steps, freq, validate_inputs, known=future_df)
        options = {"context_length": context_length, "cross_learning": cross_learning, **predict_kwargs}
        return self.predict_panel(panel, steps, quantile_levels, batch_size, **options)

    def read_panel(
        self,
        df: Any,
        columns: Columns,
        steps: int,
        freq: str | None = None,
        validate: bool = True,
        saying: Saying | None = None,
        known: Any = None,
    ) -> Panel:
        """See :meth:`Forecaster.read_panel`."""
        from tsmerge_export.forecast.task_frame import read

        return read(df, columns, steps, freq, validate, saying, known)

    def _forecast_panel(
        self, panel: Panel, steps: int, levels: Sequence[float], batch_size: int, **options: Any
    ) -> tuple[Floats, Floats]:
        """All in one call: which of them make up a group is for :meth:`predict` to say."""
        from tsmerge_export.forecast import frame

        with frame.naming(panel.ids):
            found = self.predict_quantiles(
                panel.values, steps, quantile_levels=levels, batch_size=batch_size, **options
            )
        quantiles, points = found
        return np.concatenate(quantiles), np.concatenate(points)

    def _own_context(self, context_length: Any) -> int:
        """Steps to read: as many as asked for, at most the model's own."""
        if context_length is None:
            return self._context
        steps = check.whole("context_length", context_length, 1, 2**31)
        if steps > self._context:
            note(f"context_length {steps} is longer than the model's own {self._context}, which counts")
        return min(steps, self._context)

    def _paths(self, levels: Sequence[float] | None) -> list[int]:
        """Places of the quantiles that go on where one run is not enough, ascending: their masses are taken so."""
        if levels is None:
            chosen = tuple(level for level in LEVELS if level in self._levels) or tuple(self._levels)
        else:
            chosen = check.quantile_levels(levels, "unrolled_quantiles")
        missing = next((level for level in chosen if level not in self._levels), None)
        if missing is not None:
            own = ", ".join(f"{level:g}" for level in self._levels)
            raise UsageError(f"unrolled_quantiles: {missing:g} is none of the model's own levels ({own})")
        return sorted({self._levels.index(level) for level in chosen})

    def run_once(self, context: Floats, steps: int) -> Floats:
        raise NotImplementedError("groups are run by _Run")


@dataclass(frozen=True)
class _Run:
    """One call: every group by itself, those of one size together.

    Attributes:
        model: the forecaster. steps: of the horizon. patches: of one run of the model, at most.
        paths: places of the quantiles that go on. after: called after each run.
    """

    model: Chronos2
    steps: int
    patches: int
    paths: list[int]
    after: Callable[[], Any] | None

    def __call__(self, groups: Sequence[_Group], tasks: int) -> Many:
        """``[targets, Q, H]`` of each task."""
        model, out, done = self.model, [np.empty(0, np.float32)] * tasks, 0
        pieces = -(-self.steps // (self.patches * model._patch))
        rows = max(1, model._memory // (model.bytes_per_step * model._context)) // (
            len(self.paths) if pieces > 1 else 1
        )
        with model._working():
            for alike_ in alike([self._kind(group) for group in groups]):
                each = len(groups[alike_[0]].context)
                for start in range(0, len(alike_), max(1, rows // each)):
                    part = [groups[index] for index in alike_[start : start + max(1, rows // each)]]
                    for group, found in zip(part, self._forecast(part), strict=True):
                        for index, place in group.tasks:
                            out[index] = np.ascontiguousarray(found[place])
                    done += len(part)
                    model.progress.update(done, len(groups))
                    if self.after is not None:
                        self.after()
        return out

    def _kind(self, group: _Group) -> tuple[int, int]:
        """What groups must share to be one batch: series, and where merging counts padding, tokens."""
        series, length = group.context.shape
        return series, self.model._seen(length) if self.model._padding_counts else 0

    def _forecast(self, groups: Sequence[_Group]) -> Floats:
        """``[G, V, Q, H]``."""
        model = self.model
        longest = max(group.context.shape[1] for group in groups)
        context = np.stack([_padded(group.context, longest) for group in groups])
        future = np.stack([group.future for group in groups])
        own = model._levels
        found = self._step(context, future, self.steps)
        pieces, done = [found], found.shape[-1]
        count, series = context.shape[:2]
        if done < self.steps:
            paths = len(self.paths)
            context, future = (
                np.broadcast_to(side[:, None], (count, paths, *side.shape[1:])) for side in (context, future)
            )
            levels = [own[place] for place in self.paths]
            weights = np.outer(masses(levels), masses(own)).ravel().astype(np.float32)
        while done < self.steps:
            grown = found[:, :, self.paths].swapaxes(1, 2)  # [G, paths, V, h]
            known = future[..., : grown.shape[-1]]
            ahead = grown.copy()
            ahead[..., : known.shape[-1]] = np.where(np.isnan(known), grown[..., : known.shape[-1]], known)
            context = np.concatenate([context, ahead], -1)[..., -model._context :]
            future = future[..., grown.shape[-1] :]
            flat = [side.reshape(count * paths, series, side.shape[-1]) for side in (context, future)]
            many = self._step(flat[0], flat[1], self.steps - done)
            many = many.reshape(count, paths, series, *many.shape[2:])
            samples = many.transpose(0, 2, 4, 1, 3).reshape(count, series, many.shape[-1], -1)
            found = np.moveaxis(weighted_quantiles(samples, weights, own), -1, 2)
            pieces.append(found)
            done += found.shape[-1]
        return np.concatenate(pieces, -1)[..., : self.steps]

    def _step(self, context: Floats, future: Floats, remaining: int) -> Floats:
        """One run of the model: ``[G, V, L]`` and what is known of the horizon -> ``[G, V, Q, patches * patch]``."""
        patch = self.model._patch
        patches = min(self.patches, -(-remaining // patch))
        groups, series = context.shape[:2]
        known = np.full((groups, series, patches * patch), np.nan, np.float32)
        there = min(future.shape[-1], known.shape[-1])
        known[..., :there] = future[..., :there]
        found = self.model.session.run(
            {
                "context": np.ascontiguousarray(context, np.float32),
                "future": known.reshape(groups, series, patches, patch),
                "series_mask": np.ones((groups, series), np.float32),
            }
        )["quantiles"]
        return found.reshape(groups, series, found.shape[2], -1)


def _joined(tasks: Sequence[Task], size: int) -> list[_Group]:
    """Tasks one after the other, each group until it has that many rows."""
    out, part, rows = [], [], 0
    for item in enumerate(tasks):
        part.append(item)
        rows += len(item[1].context)
        if rows >= size:
            out.append(_group(part))
            part, rows = [], 0
    return [*out, _group(part)] if part else out


def _group(tasks: Sequence[tuple[int, Task]]) -> _Group:
    longest = max(task.context.shape[1] for _, task in tasks)
    places, start = [], 0
    for index, task in tasks:
        places.append((index, slice(start, start + task.targets)))
        start += len(task.context)
    return _Group(
        np.concatenate([_padded(task.context, longest) for _, task in tasks]),
        np.concatenate([task.future for _, task in tasks]),
        tuple(places),
    )


def _padded(context: Floats, length: int) -> Floats:
    """``[V, L]`` -> ``[V, length]``, missing (NaN) on its left."""
    out = np.full((len(context), length), np.nan, np.float32)
    out[:, length - context.shape[1] :] = context
    return out
