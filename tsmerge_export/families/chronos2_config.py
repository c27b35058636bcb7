"""Configs of Chronos-2: two spellings made one, and what no Chronos-2 has refused before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

from chronos.chronos2.config import Chronos2CoreConfig, Chronos2ForecastingConfig

from tsmerge_export.errors import UnsupportedError, UsageError

#: ``model_type`` of the other spelling; the legacy one is that of T5.
NATIVE = ("chronos2", "chronos_2", "chronos-2")
_OWN = "chronos_config"
_COUNTS = (
    "context_length",
    "input_patch_size",
    "input_patch_stride",
    "output_patch_size",
    "max_output_patches",
)


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as chronos-forecasting spells it, of that or of the one that transformers' own port proposes: a
    ``model_type`` of its own, what describes the forecast beside all else, and ``rope_parameters``.

    Raises:
        UsageError: values that no Chronos-2 has.
        UnsupportedError: rotary positions of another kind.
    """
    out = dict(config)
    nested = out.get(_OWN)
    if nested is not None and not isinstance(nested, Mapping):
        raise UsageError(f"config.json: {_OWN} is a {type(nested).__name__}, not an object")
    if out.get("model_type") in NATIVE:
        out["model_type"] = Chronos2CoreConfig.model_type
        names = [field.name for field in fields(Chronos2ForecastingConfig)]
        flat = {name: out.pop(name) for name in names if name in out}
        if flat:
            out[_OWN] = {**flat, **(nested or {})}
        theta = _theta(out.pop("rope_parameters", None))
        if theta is not None:
            out.setdefault("rope_theta", theta)
    if not _is_number(out.get("rope_theta", 1.0)) or out.get("rope_theta", 1.0) <= 0:
        raise UsageError(f"config.json: rope_theta is {out['rope_theta']!r}, not a number above 0")
    _check_forecast(out.get(_OWN) or {})
    return out


def _theta(rope: Any) -> float | None:
    """The rotary base that ``rope_parameters`` names; None where it names none. Raises UnsupportedError."""
    if rope is None:
        return None
    label = "config.json: rope_parameters"
    if not isinstance(rope, Mapping):
        raise UnsupportedError(f"{label} is a {type(rope).__name__}; only an object with rope_theta is read")
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in (None, "default"):
        raise UnsupportedError(f"{label} has rope_type {kind!r}; only 'default' is computed")
    other = next(
        (
            key
            for key, value in rope.items()
            if value is not None and key not in ("rope_theta", "rope_type", "type")
        ),
        None,
    )
    if other is not None:
        raise UnsupportedError(f"{label} has {other!r}; only rope_theta of the default kind is computed")
    theta = rope.get("rope_theta")
    if theta is not None and (not _is_number(theta) or theta <= 0):
        raise UnsupportedError(f"{label} has rope_theta {theta!r}, not a number above 0")
    return theta


def _check_forecast(own: Mapping[str, Any]) -> None:
    """UsageError for a ``chronos_config`` that no Chronos-2 has; what is not there is the builder's to name."""
    for name in _COUNTS:
        value = own.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"config.json: {_OWN}.{name} is {value!r}, not a whole number above 0")
    scale = own.get("time_encoding_scale", 1)
    if not _is_number(scale) or scale <= 0:
        raise UsageError(f"config.json: {_OWN}.time_encoding_scale is {scale!r}, not a number above 0")
    levels = own.get("quantiles", [0.5])
    if (
        not isinstance(levels, list | tuple)
        or not levels
        or not all(_is_number(level) and 0 < level < 1 for level in levels)
        or any(low >= high for low, high in pairwise(levels))
    ):
        raise UsageError(
            f"config.json: {_OWN}.quantiles are no ascending levels between 0 and 1, as the model's heads are"
        )
    for name, fits in (
        ("use_reg_token", bool(own.get("use_reg_token"))),
        ("input_patch_stride", own.get("input_patch_stride") == own.get("input_patch_size")),
    ):
        if own and not fits:
            raise UsageError(f"config.json: {_OWN}.{name} is {own.get(name)!r}, which no Chronos-2 has")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
