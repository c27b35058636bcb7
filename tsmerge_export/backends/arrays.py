"""Inputs of a model: anything array-like becomes the array the model wants, or one clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.bundle import TensorInfo
from tsmerge_export.errors import UnsupportedError, UsageError


def prepare(values: Mapping[str, Any], inputs: Sequence[TensorInfo]) -> dict[str, NDArray[Any]]:
    """Check and convert the inputs of one run.

    Args:
        values: name -> array, nested list, or anything with ``__array__`` (a torch tensor on the CPU).
        inputs: what the model wants.

    Returns:
        name -> contiguous array of the wanted dtype.

    Raises:
        UsageError: an input is missing, unknown, of the wrong rank or size, empty, or would lose information.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"inputs must be a dict of name to array, not {type(values).__name__}")
    names = [info.name for info in inputs]
    for name in names:
        if name not in values:
            raise UsageError(f"input {name!r} is missing; the model wants: {', '.join(names)}")
    for name in values:
        if name not in names:
            raise UsageError(f"input {name!r} is not known; the model wants: {', '.join(names)}")
    sizes: dict[str, tuple[int, str]] = {}
    return {info.name: _check_dims(convert(values[info.name], info), info, sizes) for info in inputs}


def convert(value: Any, info: TensorInfo) -> NDArray[Any]:
    """``value`` as a contiguous array of the input's dtype.

    Between float types rounding is accepted, overflow to infinity is not; every other conversion must be exact. What a
    masked array masks becomes NaN.

    Raises:
        UsageError: not numeric, ragged, or not convertible without loss. UnsupportedError: numpy has no such type.
    """
    try:
        wanted = np.dtype(info.dtype)
    except TypeError:
        raise UnsupportedError(f"input {info.name!r} is a {info.dtype}, which arrays cannot hold") from None
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        if wanted.kind != "f" or value.dtype.kind not in "biuf":
            raise UsageError(
                f"input {info.name!r} has masked values, and {wanted} has no NaN for them; fill them"
            )
        value = np.ma.filled(value.astype(np.promote_types(value.dtype, np.float32)), np.nan)
    try:
        if hasattr(
            value, "detach"
        ):  # a torch tensor, also one that requires grad; torch itself is not imported
            value = value.detach().cpu()
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise UsageError(f"input {info.name!r} is not an array: {str(error).splitlines()[0]}") from None
    if array.dtype == wanted:
        return np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.kind not in "biuf":
        raise UsageError(f"input {info.name!r} has dtype {array.dtype}, the model wants {wanted}")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(wanted)
        if array.dtype.kind == wanted.kind == "f":
            same = np.array_equal(np.isinf(result), np.isinf(array))
        else:
            same = np.array_equal(result.astype(array.dtype), array, equal_nan=array.dtype.kind == "f")
            # The way back undoes a wrap-around (uint64 to int64) as well: signs must agree too.
            same = same and (array.dtype.kind == "b" or np.array_equal(result < 0, array < 0))
    if not same:
        raise UsageError(f"input {info.name!r} of dtype {array.dtype} cannot become {wanted} without loss")
    return result


def _check_dims(array: NDArray[Any], info: TensorInfo, sizes: dict[str, tuple[int, str]]) -> NDArray[Any]:
    wanted = "[" + ", ".join(map(str, info.dims)) + "]"
    if array.ndim != len(info.dims):
        raise UsageError(f"input {info.name!r} has shape {list(array.shape)}, the model wants {wanted}")
    for length, dim in zip(array.shape, info.dims, strict=True):
        if length == 0:
            raise UsageError(
                f"input {info.name!r} is empty: shape {list(array.shape)}, the model wants {wanted}"
            )
        if isinstance(dim, int):
            if length != dim:
                raise UsageError(
                    f"input {info.name!r} has shape {list(array.shape)}, the model wants {wanted}"
                )
            continue
        known, where = sizes.setdefault(dim, (length, info.name))
        if known != length:
            raise UsageError(f"inputs {where!r} and {info.name!r} disagree on {dim}: {known} and {length}")
    return array
