"""What to merge, where and how much: the settings a user gives, checked once, kept exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal

from tsmerge_export.errors import UsageError

Positions = Literal["gather", "compact"]

DEFAULT_RATIO = Fraction(1, 4)
_MAX_RATIO = Fraction(1, 2)
_MAX_DENOMINATOR = 1_000_000


def parse_ratio(value: str | float | Fraction) -> Fraction:
    """Read a merge ratio as an exact fraction, so that no two runtimes round it differently.

    Args:
        value: ``"1/4"``, ``"0.25"``, ``"25%"``, a float or a Fraction; the share of tokens to remove.

    Returns:
        The ratio in lowest terms, 0 < ratio <= 1/2.

    Raises:
        UsageError: not a number, or outside (0, 1/2] (one merge step removes at most every second token).
    """
    try:
        if isinstance(value, str):
            text = value.strip()
            ratio = Fraction(text[:-1].strip()) / 100 if text.endswith("%") else Fraction(text)
        else:
            # str() first: Fraction(0.1) would be the binary neighbour of 1/10.
            ratio = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--ratio {value!r} is not a number; write it as 1/4, 0.25 or 25%") from None
    if not 0 < ratio <= _MAX_RATIO:
        raise UsageError(
            f"--ratio {value} is out of range; it must be above 0 and at most 1/2 (every second token)"
        )
    if ratio.denominator > _MAX_DENOMINATOR:
        raise UsageError(
            f"--ratio {value} has more than six decimals; write it as a simple fraction such as 1/3"
        )
    return ratio


def parse_k(value: str | int) -> int | None:
    """Read the neighbourhood: a whole number >= 1, or ``"global"`` (returned as None) for all tokens."""
    if isinstance(value, str) and value.strip().lower() in ("global", "all"):
        return None
    try:
        k = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"--k {value!r} is not a whole number; give 1, 2, ... or 'global'") from None
    if k < 1 or (not isinstance(value, str) and k != value):
        raise UsageError(f"--k {value} is out of range; it must be a whole number of at least 1, or 'global'")
    return k


def _whole(flag: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{flag} {value} is not a whole number of at least {least}")
    return value


@dataclass(frozen=True)
class MergeConfig:
    """Merge settings, independent of the model they are applied to.

    Args:
        method: ``"none"`` (export without merging) or ``"local"`` (arXiv 2405.17951, section 3).
        k: neighbourhood of local merging in token pairs, >= 1; None or ``"global"`` compares all tokens (ToMe).
        ratio: share of the tokens that each merge step removes, 0 < ratio <= 1/2; kept as an exact Fraction.
        r: number of tokens that each merge step removes, >= 1; excludes ``ratio``. With neither given, ratio 1/4.
        min_tokens: no merge step leaves fewer tokens than this, >= 0.
        layers: indices of the layers to merge in, counted from 0 in order of execution; None is all of them.
        positions: ``"gather"`` keeps true distances between surviving tokens; ``"compact"`` renumbers them
            0..M-1 (cheaper; distances shrink). Masks are always gathered.

    Raises:
        UsageError: a setting is out of range or contradicts another.
    """

    method: str = "local"
    k: int | str | None = 1
    ratio: Fraction | str | float | None = None
    r: int | None = None
    min_tokens: int = 4
    layers: tuple[int, ...] | None = None
    positions: Positions = "gather"

    def __post_init__(self) -> None:
        if self.method not in ("none", "local"):
            raise UsageError(f"--merge {self.method} is not a known method; choose one of: none, local")
        if self.positions not in ("gather", "compact"):
            raise UsageError(f"--positions {self.positions} is not known; choose gather or compact")
        put = object.__setattr__  # the dataclass is frozen; this is its own constructor
        put(self, "k", None if self.k is None else parse_k(self.k))
        if self.r is not None and self.ratio is not None:
            raise UsageError("--r and --ratio exclude each other; give one of them")
        if self.r is not None:
            _whole("--r", self.r, 1)
        elif self.method != "none":
            put(self, "ratio", parse_ratio(DEFAULT_RATIO if self.ratio is None else self.ratio))
        _whole("--min-tokens", self.min_tokens, 0)
        if self.layers is not None:
            layers = tuple(sorted({_whole("--layers", i, 0) for i in self.layers}))
            if not layers:
                raise UsageError(
                    "--layers is empty; give layer indices such as 0,1,2, or leave it out for all"
                )
            put(self, "layers", layers)

    @property
    def active(self) -> bool:
        """False for ``method="none"``."""
        return self.method != "none"

    def select_layers(self, count: int) -> tuple[int, ...]:
        """The layers to merge in, of a model that has ``count`` of them.

        Raises:
            UsageError: ``layers`` names one that the model does not have.
        """
        if not self.active:
            return ()
        if self.layers is None:
            return tuple(range(count))
        if self.layers[-1] >= count:
            raise UsageError(
                f"--layers {self.layers[-1]} is out of range; the model has layers 0 to {count - 1}"
            )
        return self.layers

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings; the ratio as ``"1/4"``, a global k as ``"global"``."""
        out = {field.name: getattr(self, field.name) for field in fields(self)}
        out["k"] = "global" if self.k is None else self.k
        out["ratio"] = None if self.ratio is None else str(self.ratio)
        out["layers"] = None if self.layers is None else list(self.layers)
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MergeConfig:
        """Inverse of :meth:`to_dict`. Raises UsageError for unknown keys."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise UsageError(f"unknown merge setting {unknown[0]!r}; known are: {', '.join(sorted(known))}")
        values = dict(data)
        if values.get("layers") is not None:
            values["layers"] = tuple(values["layers"])
        return cls(**values)

    def describe(self) -> str:
        """One short line for tables and logs, such as ``local k=1 ratio=1/4 min-tokens=4``."""
        if not self.active:
            return "none"
        amount = f"r={self.r}" if self.r is not None else f"ratio={self.ratio}"
        k = "global" if self.k is None else self.k
        where = "" if self.layers is None else " layers=" + ",".join(map(str, self.layers))
        return f"{self.method} k={k} {amount} min-tokens={self.min_tokens} positions={self.positions}{where}"


def tokens_removed(
    tokens: int, *, r: int = 0, ratio: Fraction | None = None, min_tokens: int = 0, protected: int = 0
) -> int:
    """r(N) of design 1.1: how many of ``tokens`` one merge step removes. Depends on the count alone."""
    pairs = max(0, tokens - protected) // 2
    wanted = math.floor(tokens * ratio) if ratio is not None else r
    return min(max(0, wanted), pairs, max(0, tokens - min_tokens))
