"""Inputs of Chronos-2: series forecast together, with covariates, in the forms that upstream's pipeline takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import categories
from tsmerge_export.forecast import inputs as check

Floats = NDArray[np.float32]
_PAST, _FUTURE = "past_covariates", "future_covariates"
_EPS = 1e-5  # what the model divides by where the deviation is 0
_KEYS = ("target", _PAST, _FUTURE)


@dataclass(frozen=True)
class Task:
    """A group of series of one length, of which the first are forecast.

    Attributes:
        context: ``[V, L]`` float32, NaN is missing. future: ``[V, H]`` float32, NaN is not known.
        targets: rows at the front that are forecast; the others are covariates.
    """

    context: Floats
    future: Floats
    targets: int


def are_plain(inputs: Any) -> bool:
    """Whether these are series alone: one of them, or a 2-D array."""
    if isinstance(inputs, list | tuple):
        return bool(inputs) and all(np.ndim(check.from_torch(item)) == 0 for item in inputs) and not any(
            isinstance(item, Mapping | Task) for item in inputs
        )  # fmt: skip
    return np.ndim(check.from_torch(inputs)) in (1, 2)


def as_tasks(inputs: Any, steps: int, context_length: int) -> list[Task]:
    """Tasks one by one, cut to what the model reads.

    Args:
        inputs: a 3-D array ``[B, V, L]``, whose V variates are forecast together; a list of series ``[L]`` or
            ``[V, L]`` of any lengths; or a list of dicts with ``target``, ``past_covariates`` and
            ``future_covariates``, see :meth:`~tsmerge_export.forecast.chronos2.Chronos2.predict`; or what
            :func:`from_dicts` made.
        steps: of the horizon. context_length: steps that the model reads.

    Raises:
        UsageError: no series, dicts that are not alike, covariates of other lengths, values that make no sense.
    """
    items = check.from_torch(inputs)
    if not isinstance(items, list | tuple):
        array = np.asarray(check.filled(items))
        if array.ndim != 3:
            raise UsageError(
                f"inputs have shape {list(array.shape)}; give one series, a 2-D or 3-D array, or a list of series"
            )
        items = list(array)
    if not len(items):
        raise UsageError("inputs hold no series")
    if all(isinstance(item, Task) for item in items):
        tasks = list(items)
    elif any(isinstance(item, Mapping) for item in items):
        made = any("context" in item for item in items if isinstance(item, Mapping))
        tasks = _prepared(items, steps) if made else from_dicts(items, steps)
    else:
        tasks = [_targets(item, f"series {index}", steps) for index, item in enumerate(items)]
    tasks = [Task(task.context[:, -context_length:], task.future, task.targets) for task in tasks]
    for index, task in enumerate(tasks):
        for row in range(task.targets):
            check.observed(task.context[row], named(index, row, task.targets))
    return tasks


def check_scaled(task: Task, index: int) -> None:
    """UsageError for a known future that overflows float32 once scaled as the model does, by the row's past.

    Args:
        index: of the task, which the message names.
    """
    for row, (past, future) in enumerate(zip(task.context, task.future, strict=True)):
        seen, known = past[~np.isnan(past)], future[~np.isnan(future)]
        if not len(known):
            continue
        with np.errstate(over="ignore", under="ignore"):
            loc = seen.mean(dtype=np.float32) if len(seen) else np.float32(0)
            scale = np.sqrt(np.square(seen - loc).mean(dtype=np.float32)) if len(seen) else np.float32(1)
            fits = np.isfinite((known - loc) / (scale or np.float32(_EPS))).all()
        if not fits:
            raise UsageError(
                f"{named(index, row, task.targets)} has a known future of up to {np.abs(known).max():.3g}, too large "
                f"beside its past, whose deviation is {scale:.3g}; leave it out, or scale both"
            )


def named(index: int, row: int, targets: int) -> str:
    """A row of a task, as messages call it."""
    if row >= targets:
        return f"series {index} (covariate {row - targets})"
    return f"series {index}" if targets == 1 else f"series {index} (variate {row})"


def from_dicts(
    items: Sequence[Any], steps: int, names: Mapping[str, Sequence[Any]] | None = None
) -> list[Task]:
    """Tasks with covariates; those that are no numbers are categories, encoded by :mod:`.categories`.

    Args:
        items: dicts, see :func:`as_tasks`. steps: of the horizon.
        names: of the categories of a covariate, in order; what is left out is found.

    Raises:
        UsageError: see :func:`as_tasks`.
    """
    keys = [_read_keys(item, index) for index, item in enumerate(items)]
    targets = [_targets(item["target"], f"series {index}", steps).context for index, item in enumerate(items)]
    lengths = [target.shape[1] for target in targets]
    for index, (own, target) in enumerate(zip(keys, targets, strict=True)):
        if own != keys[0] or len(target) != len(targets[0]):
            raise UsageError(
                f"series {index} has other variates or covariates than series 0; forecast them in calls of their own"
            )
    past_keys, future_keys = keys[0]
    count, at = len(targets[0]), categories.Items.of(lengths, steps)
    whole = np.concatenate(targets, axis=1)
    # Covariates whose future is known stand last.
    ordered = [key for key in past_keys if key not in future_keys] + list(future_keys)
    rows = [(whole[row], np.full(len(items) * steps, np.nan, np.float32)) for row in range(count)]
    for key in ordered:
        past = _column(items, _PAST, key, lengths)
        future = _column(items, _FUTURE, key, [steps] * len(items)) if key in future_keys else None
        if np.issubdtype(past.dtype, np.number):
            ahead = None if future is None else numbers(future, f"{_FUTURE} {key!r}")
            row = numbers(past, f"{_PAST} {key!r}"), ahead
        else:
            try:
                row = categories.encode(
                    past.tolist(),
                    None if future is None else future.tolist(),
                    at,
                    whole[0] if count == 1 else None,
                    (names or {}).get(key),
                )
            except TypeError as error:
                raise UsageError(
                    f"covariate {key!r} holds what is no category ({error}); give words or numbers"
                ) from None
        rows.append((row[0], rows[0][1] if row[1] is None else row[1]))
    context, future = (np.stack(side) for side in zip(*rows, strict=True))
    ends = np.cumsum(lengths)
    return [
        Task(context[:, end - length : end], future[:, index * steps : (index + 1) * steps], count)
        for index, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def _targets(values: Any, name: str, steps: int) -> Task:
    """A task without covariates, of a series ``[L]`` or ``[V, L]``."""
    values = check.from_torch(values)
    if np.ndim(values) > 2 or (np.ndim(values) == 2 and not len(values)):
        raise UsageError(f"{name} has shape {list(np.shape(values))}, expected [steps] or [variates, steps]")
    rows = list(values) if np.ndim(values) == 2 else [values]
    found = [
        check.as_series(row, name if len(rows) == 1 else f"{name} (variate {index})")
        for index, row in enumerate(rows)
    ]
    return Task(np.stack(found), np.full((len(rows), steps), np.nan, np.float32), len(rows))


def _prepared(items: Sequence[Any], steps: int) -> list[Task]:
    """What chronos.chronos2.preprocess makes, for that many steps."""
    tasks = []
    for index, item in enumerate(items):
        try:
            if not isinstance(item, Mapping):
                raise TypeError(f"a {type(item).__name__}")
            sides = [np.asarray(check.from_torch(item[side]), np.float32) for side in ("context", _FUTURE)]
            targets = int(item["n_targets"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"series {index} is no prepared input: {error!r}") from None
        fits = all(side.ndim == 2 for side in sides) and len(sides[0]) == len(sides[1])
        if not fits or not 1 <= targets <= len(sides[0]):
            raise UsageError(f"series {index} is no prepared input: its shapes do not fit each other")
        if sides[1].shape[1] != steps:
            raise UsageError(
                f"series {index} was prepared for {sides[1].shape[1]} steps, expected {steps}; prepare it for those"
            )
        for side, values in zip(("context", _FUTURE), sides, strict=True):
            if np.isinf(values).any():
                raise UsageError(f"series {index}: its {side} has infinite values; give finite ones")
        tasks.append(Task(sides[0], sides[1], targets))
    return tasks


def _read_keys(item: Any, index: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the past covariates, and of those whose future is known, sorted."""
    if not isinstance(item, Mapping) or "target" not in item:
        raise UsageError(f"series {index} is no dict with a 'target', as others are; give all in one form")
    wrong = next((key for key in item if key not in _KEYS), None)
    if wrong is not None:
        raise UsageError(f"series {index} has a key {wrong!r}; it may have {', '.join(_KEYS)}")
    sides = [{} if item.get(side) is None else item[side] for side in (_PAST, _FUTURE)]
    for side, value in zip((_PAST, _FUTURE), sides, strict=True):
        if not isinstance(value, Mapping):
            raise UsageError(f"series {index}: {side} is a {type(value).__name__}, not a dict of covariates")
    past, future = sides
    alone = next((key for key in future if key not in past), None)
    if alone is not None:
        raise UsageError(
            f"series {index}: {_FUTURE} has {alone!r}, of which {_PAST} has no history; give it there too"
        )
    given = {key: value for key, value in future.items() if value is not None}
    known = [key for key, value in given.items() if _array(value, f"series {index}: {_FUTURE} {key!r}").size]
    # One whose future is named but not given stands with those that have none: neither has any.
    return _in_order(past), _in_order(known)


def _in_order(keys: Iterable[Any]) -> tuple[Any, ...]:
    """Names sorted; they need not be strings, nor of one type."""
    return tuple(sorted(keys, key=lambda key: (str(key), type(key).__name__)))


def _array(values: Any, name: str) -> NDArray[Any]:
    """Values of a covariate; raises UsageError, which begins with ``name``, for rows of several lengths."""
    try:
        return np.asarray(check.filled(check.from_torch(values)))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is no array of one dim; give one value a step") from None


def _column(items: Sequence[Any], side: str, key: str, lengths: Sequence[int]) -> NDArray[Any]:
    """The values of a covariate, series by series."""
    parts = []
    for index, (item, length) in enumerate(zip(items, lengths, strict=True)):
        part = _array(item[side][key], f"series {index}: {side} {key!r}")
        if part.shape != (length,):
            raise UsageError(
                f"series {index}: {side} {key!r} has shape {list(part.shape)}, expected [{length}]"
            )
        parts.append(part)
    found = np.concatenate(parts)
    if found.dtype == object:
        found[[categories.is_missing(value) for value in found]] = None
    # Numbers beside None are numbers; upstream goes by the dtype alone.
    plain = found.dtype == object and all(
        value is None or (isinstance(value, Real) and not isinstance(value, bool)) for value in found
    )
    return found.astype(np.float64) if plain else found


def numbers(values: NDArray[Any], name: str) -> Floats:
    """A covariate that is numeric as float32; raises UsageError, which begins with ``name``, for what is not finite."""
    try:
        with np.errstate(over="ignore"):
            found = values.astype(np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is numeric in the past, and not in the future; give numbers") from None
    if np.isinf(found).any():
        raise UsageError(f"{name} has infinite values, or values beyond float32; give finite ones")
    return found
