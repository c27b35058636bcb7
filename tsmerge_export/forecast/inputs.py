"""What a caller may give: series in any array-like form, numbers within limits. Everything else is one clear line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError

Floats = NDArray[np.float32]

MAX_PREDICTION_LENGTH = 65_536
MAX_SAMPLES = 100_000


def as_rows(inputs: Any, context_length: int) -> list[Floats]:
    """Series one by one, cut to what the model reads.

    Args:
        inputs: a series, a 2-D array of series, or a list of series of any lengths; arrays, lists, torch tensors. NaN,
            None in a list and what a masked array masks are missing.
        context_length: steps that the model reads.

    Returns:
        For each series ``[L]`` float32, L from 1 to ``context_length``.

    Raises:
        UsageError: no series, an empty one, one without an observed value, text, infinite values, other dims.
    """
    series = _split(inputs)
    if not series:
        raise UsageError("inputs hold no series")
    rows = [as_series(values, f"series {index}")[-context_length:] for index, values in enumerate(series)]
    for index, row in enumerate(rows):
        observed(row, f"series {index}")
    return rows


def observed(row: Floats, name: str) -> None:
    """UsageError, which begins with ``name``, for a series ``[L]`` that has no value."""
    if np.isnan(row).all():
        raise UsageError(f"{name} has no observed value in its last {len(row)} steps; leave it out")


def padded(rows: Sequence[Floats]) -> Floats:
    """Series ``[L]`` of any lengths as one array ``[B, longest]``, the shorter ones missing (NaN) on their left."""
    batch = np.full((len(rows), max(map(len, rows))), np.nan, np.float32)
    for series, row in zip(batch, rows, strict=True):
        series[len(series) - len(row) :] = row
    return batch


def as_batch(inputs: Any, context_length: int) -> Floats:
    """:func:`as_rows` as one array, see :func:`padded`: for models to which all lengths are the same."""
    return padded(as_rows(inputs, context_length))


def _split(inputs: Any) -> Sequence[Any]:
    inputs = from_torch(inputs)
    if isinstance(inputs, list | tuple):
        scalars = [np.ndim(item) == 0 for item in inputs if not hasattr(item, "detach") or item.ndim == 0]
        return [inputs] if inputs and len(scalars) == len(inputs) and all(scalars) else inputs
    array = np.asarray(filled(inputs))
    if array.ndim not in (1, 2):
        raise UsageError(
            f"inputs have shape {list(array.shape)}; give one series, a 2-D array, or a list of series"
        )
    return [array] if array.ndim == 1 else list(array)


def from_torch(values: Any) -> Any:
    """A torch tensor as an array; anything else as it is. torch itself is not imported."""
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()


def as_series(values: Any, name: str) -> Floats:
    """One series ``[L]`` float32 of anything like an array; see :func:`as_rows`.

    Raises:
        UsageError: which begins with ``name``: other dims, empty, not numeric, infinite.
    """
    array = np.asarray(filled(from_torch(values)))
    if array.ndim != 1:
        raise UsageError(f"{name} has shape {list(array.shape)}, expected one dim")
    if not len(array):
        raise UsageError(f"{name} is empty; leave it out")
    try:
        if array.dtype.kind not in "biufO":
            raise ValueError(f"dtype {array.dtype}")
        if array.dtype.kind == "O" and any(isinstance(value, str | bytes) for value in array):
            raise ValueError("text")
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is not numeric ({error}); give numbers, NaN where missing") from None
    if np.isinf(array).any():
        raise UsageError(f"{name} has infinite values, or values beyond float32; give finite ones")
    return array


def filled(values: Any) -> Any:
    """NaN where a masked array, or a masked value in a list, is masked."""
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64) if values.dtype.kind in "biuf" else values, np.nan)
    if isinstance(values, list | tuple):
        return [np.nan if value is np.ma.masked else value for value in values]
    return values


def prediction_length(value: Any, default: int, limit: bool) -> int:
    """Steps to forecast, ``default`` for None.

    Args:
        limit: refuse more than the model was made for, ``default``.

    Raises:
        UsageError: not a whole number from 1 to :data:`MAX_PREDICTION_LENGTH`, or beyond the limit.
    """
    steps = default if value is None else whole("prediction_length", value, 1, MAX_PREDICTION_LENGTH)
    if limit and steps > default:
        raise UsageError(
            f"prediction_length {steps} is longer than the model's own {default}; "
            "set limit_prediction_length=False to allow it"
        )
    return steps


def whole(name: str, value: Any, least: int, most: int) -> int:
    """A whole number in a range; raises UsageError that names the argument."""
    fits = isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most
    if not fits:
        raise UsageError(f"{name} {value!r} is not a whole number from {least} to {most}")
    return int(value)


def number(name: str, value: Any, least: float, most: float, *, above: bool = False) -> float:
    """A finite number in a range (``above``: without its lower end); raises UsageError that names the argument."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} {value!r} is not a number") from None
    if not math.isfinite(found) or not least <= found <= most or (above and found == least):
        ends = f"above {least:g}" if above else f"from {least:g}"
        raise UsageError(f"{name} {value!r} is out of range; it must be {ends} to {most:g}")
    return found


def quantile_levels(levels: Any, name: str = "quantile_levels") -> tuple[float, ...]:
    """Levels from 0 to 1, at least one; raises UsageError that names the argument for anything else."""
    if isinstance(levels, str) or not hasattr(levels, "__iter__") or getattr(levels, "ndim", 1) == 0:
        raise UsageError(f"{name} {levels!r} is not a list of numbers")
    found = tuple(number(name, level, 0, 1) for level in levels)
    if not found:
        raise UsageError(f"{name} is empty")
    return found


def seed(value: Any) -> int:
    """A seed of at least 0; for None a fresh one from the operating system."""
    if value is None:
        return int(np.random.SeedSequence().entropy)  # type: ignore[arg-type]
    return whole("seed", value, 0, 2**128)
