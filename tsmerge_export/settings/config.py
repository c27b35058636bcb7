"""What to merge, where and how much: the settings a user gives, checked once, kept exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal, cast

from tsmerge_export.errors import UsageError
from tsmerge_export.settings.parse import (
    ALPHA_MOST,
    number,
    parse_k,
    parse_ratio,
    parse_share,
    parse_threshold,
    per_layer,
    whole,
)

Positions = Literal["gather", "compact"]

Schedule = Literal["constant", "linear"]
Metric = Literal["x", "key", "hidden"]

DEFAULT_METHOD = "local"
DEFAULT_RATIO = Fraction(1, 4)
#: A ratio that is left to the family, see :mod:`tsmerge_export.merge.default`.
AUTO = "auto"
DEFAULT_THRESHOLD = 0.9
DEFAULT_PRUNE_SHARE = Fraction(1, 2)
_MAX_RATIO = Fraction(1, 2)

#: How alike two tokens are (``similarity`` of local, global and dynamic merging), the default first.
SIMILARITIES = ("cosine", "l2", "dot")

#: What a token's energy can be summed from (``energy`` of pitome), the default first.
ENERGIES = ("elu", "gaussian")

#: The settings that a method has besides those of all methods. A setting of another method is an error, not ignored.
OPTIONS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "local": frozenset({"k", "ratio", "r", "schedule", "similarity"}),
    "global": frozenset({"ratio", "r", "schedule", "similarity"}),
    "dynamic": frozenset({"k", "threshold", "similarity"}),
    "pitome": frozenset({"ratio", "r", "schedule", "alpha", "margin", "energy"}),
    "ssm": frozenset({"ratio", "r", "schedule", "prune_share", "residual_prune_share"}),
}


# In this order in a description.
_DESCRIBED = (
    *("k", "r", "ratio", "schedule", "threshold", "similarity"),
    *("margin", "alpha", "energy", "prune_share", "residual_prune_share"),
)


@dataclass(frozen=True)
class MergeConfig:
    """Merge settings, independent of the model they are applied to.

    Args:
        method: ``"none"`` (export without merging), ``"local"`` (arXiv 2405.17951, section 3), ``"global"``
            (ToMe, arXiv 2210.09461: local merging with every token in reach), ``"dynamic"`` (arXiv 2405.17951,
            section 3: local merging of as many tokens as are alike) ``"pitome"`` (arXiv 2405.16148, section 3: tokens
            that have many alike merge) or ``"ssm"`` (arXiv 2410.14725, section 4: unimportant tokens are merged into
            important ones, or pruned).
        k: neighbourhood of local and dynamic merging in token pairs, >= 1; None or ``"global"`` compares all tokens.
            Default 1.
        ratio: share of the tokens that each merge step removes, 0 < ratio <= 1/2, kept as an exact Fraction; or a
            sequence with one for each merging layer; or ``"auto"``, what the model's family says is safe.
        r: number of tokens that each merge step removes, >= 1, or a sequence with one (>= 0) for each merging layer;
            excludes ``ratio``. With neither given, ratio 1/4.
        schedule: ``"constant"``, or ``"linear"``: from twice the amount at the first merging layer to nothing at the
            last (ToMe, appendix), at most half of the tokens.
        threshold: of dynamic merging: each merge step removes as many tokens as have a similarity above this, from -1
            to 1, on average over the batch; or a sequence with one for each merging layer. Default 0.9.
        similarity: of local, global and dynamic merging, ``"cosine"`` (default), ``"l2"`` or ``"dot"``; all from -1
            to 1 (see :mod:`tsmerge_export.merge.similarity`).
        margin: of pitome, from which cosine on two tokens are alike, -1 <= margin <= 1, or a sequence with one for each
            merging layer. Default 0.9 - 0.9 * layer / layers.
        alpha: of pitome, weight of the tokens that are not alike, >= 0. Default 1.
        energy: of pitome, ``"elu"`` (default) or ``"gaussian"`` (a kernel of width 1 - margin, without alpha).
        prune_share: of ssm, the share of the removed tokens that is pruned instead of merged, from 0 to 1, exact.
            Default 1/2.
        residual_prune_share: of ssm with ``metric="hidden"``, the same for the residual alone; ``prune_share`` is then
            that of the hidden states, and both are reduced along the same links. Default: both as one.
        min_tokens: no merge step leaves fewer tokens than this, >= 0.
        layers: indices of the layers to merge in, counted from 0 in order of execution; None is all of them.
        positions: ``"gather"`` keeps true distances between surviving tokens; ``"compact"`` renumbers them
            0..M-1 (cheaper; distances shrink). Masks are always gathered.
        causal: of local and dynamic merging with k = 1, for models whose tokens see only earlier ones: unmerging reads
            no slot from a later token (see :func:`~tsmerge_export.merge.local.local_merge` for what exactly holds).
        metric: what is compared: ``"x"``, the tokens themselves; ``"key"``, the keys of the attention just computed,
            averaged over its heads (ToMe, section 3); or ``"hidden"``, the hidden states of a state-space block: what
            it computed, before its residual is added (arXiv 2410.14725, section 4).
        prop_attn: proportional attention (ToMe, section 3): the logarithm of its size is added to the score of every
            merged token that a later layer, or a decoder, attends to; a token of size s then counts s times.

    Raises:
        UsageError: a setting is out of range, contradicts another, or belongs to another method.
    """

    method: str = DEFAULT_METHOD
    k: int | str | None = "auto"
    ratio: Fraction | str | float | tuple[Fraction, ...] | None = None
    r: int | str | tuple[int, ...] | None = None
    schedule: Schedule | None = None
    threshold: float | str | tuple[float, ...] | None = None
    similarity: str | None = None
    margin: float | str | tuple[float, ...] | None = None
    alpha: float | str | None = None
    energy: str | None = None
    prune_share: Fraction | str | float | None = None
    residual_prune_share: Fraction | str | float | None = None
    min_tokens: int = 4
    layers: tuple[int, ...] | None = None
    positions: Positions = "gather"
    causal: bool = False
    metric: Metric = "x"
    prop_attn: bool = False

    def __post_init__(self) -> None:
        if self.method not in OPTIONS:
            raise UsageError(
                f"--merge {self.method} is not a known method; choose one of: {', '.join(OPTIONS)}"
            )
        if self.positions not in ("gather", "compact"):
            raise UsageError(f"--positions {self.positions} is not known; choose gather or compact")
        if self.metric not in ("x", "key", "hidden"):
            raise UsageError(f"--metric {self.metric} is not known; choose x, key or hidden")
        self._check_options()
        put = object.__setattr__  # the dataclass is frozen; this is its own constructor
        automatic = 1 if self.takes("k") else None
        put(self, "k", automatic if self.k == "auto" else None if self.k is None else parse_k(self.k))
        if self.causal and (self.method not in ("local", "dynamic") or self.k != 1):
            raise UsageError(
                "--causal needs --merge local or dynamic with --k 1, where a token only goes into its direct successor"
            )
        self._read_amount(put)
        if self.takes("threshold"):
            threshold = DEFAULT_THRESHOLD if self.threshold is None else self.threshold
            put(self, "threshold", per_layer(threshold, parse_threshold))
        self._read_similarity(put)
        self._read_energy(put)
        self._read_shares(put)
        whole("--min-tokens", self.min_tokens, 0)
        if self.layers is not None:
            layers = tuple(sorted({whole("--layers", i, 0) for i in self.layers}))
            if not layers:
                raise UsageError(
                    "--layers is empty; give layer indices such as 0,1,2, or leave it out for all"
                )
            put(self, "layers", layers)

    def _check_options(self) -> None:
        """Refuse what belongs to another method."""
        given = {name for name in sorted(set().union(*OPTIONS.values())) if getattr(self, name) is not None}
        if self.k in ("auto", "global", "all", None):
            given.discard("k")
        wrong = sorted(given - OPTIONS[self.method])
        if wrong and self.active:
            takes = ", ".join(map(_flag, sorted(OPTIONS[self.method]))) or "none"
            raise UsageError(
                f"{_flag(wrong[0])} has no effect with --merge {self.method}, whose own settings are: {takes}; "
                "leave it out"
            )

    def _read_amount(self, put: Any) -> None:
        if self.r is not None and self.ratio is not None:
            raise UsageError("--r and --ratio exclude each other; give one of them")
        if self.schedule not in (None, "constant", "linear"):
            raise UsageError(f"--schedule {self.schedule} is not known; choose constant or linear")
        if self.r is not None:
            put(self, "r", per_layer(self.r, _read_r))
            if isinstance(self.r, int):
                whole("--r", self.r, 1)
            elif not any(cast(tuple[int, ...], self.r)):
                raise UsageError("--r is 0 for every layer; use --merge none to export without merging")
        elif self.takes("ratio") and not self.open:
            put(self, "ratio", per_layer(DEFAULT_RATIO if self.ratio is None else self.ratio, parse_ratio))
        if self.schedule == "linear" and isinstance(self.r if self.r is not None else self.ratio, tuple):
            raise UsageError("--schedule linear takes one --ratio or --r for all layers, not a list")

    def _read_similarity(self, put: Any) -> None:
        if self.similarity not in (None, *SIMILARITIES):
            raise UsageError(
                f"--similarity {self.similarity} is not known; choose one of: {', '.join(SIMILARITIES)}"
            )
        if self.takes("similarity"):
            put(self, "similarity", self.similarity or SIMILARITIES[0])

    def _read_energy(self, put: Any) -> None:
        if self.energy not in (None, *ENERGIES):
            raise UsageError(f"--energy {self.energy} is not known; choose one of: {', '.join(ENERGIES)}")
        if self.margin is not None:
            put(self, "margin", per_layer(self.margin, lambda value: number("--margin", value, -1, 1)))
        if self.alpha is not None:
            if self.energy == "gaussian":
                raise UsageError("--alpha has no effect with --energy gaussian; leave it out")
            put(self, "alpha", number("--alpha", self.alpha, 0, ALPHA_MOST))

    def _read_shares(self, put: Any) -> None:
        if self.takes("prune_share"):
            share = DEFAULT_PRUNE_SHARE if self.prune_share is None else self.prune_share
            put(self, "prune_share", parse_share(share))
        if self.residual_prune_share is not None:
            put(
                self, "residual_prune_share", parse_share(self.residual_prune_share, "--residual-prune-share")
            )
            if self.metric != "hidden":
                raise UsageError(
                    "--residual-prune-share needs --metric hidden, where hidden states and residual are apart; add it"
                )

    @property
    def active(self) -> bool:
        """False for ``method="none"``."""
        return self.method != "none"

    @property
    def open(self) -> bool:
        """Whether the ratio is left to the family: no model can be merged by it before that is settled."""
        return self.ratio == AUTO

    def takes(self, option: str) -> bool:
        """Whether the method has this setting."""
        return option in OPTIONS[self.method]

    def amount(self, turn: int, turns: int) -> tuple[int, Fraction]:
        """(r, ratio) of one step, one of them 0: the ``turn``-th of ``turns`` merging layers, from 0.

        The linear schedule gives ``2 * amount * (turns - 1 - turn) / (turns - 1)``; r is rounded down.
        """
        if self.open:
            raise ValueError(
                "the ratio is left to the family; settle it first (tsmerge_export.merge.default)"
            )
        share = Fraction(1)
        if self.schedule == "linear" and turns > 1:
            share = Fraction(2 * (turns - 1 - turn), turns - 1)
        if self.r is not None:
            r = self.r[turn] if isinstance(self.r, tuple) else int(self.r)
            return int(r * share), Fraction(0)
        ratio = self.ratio[turn] if isinstance(self.ratio, tuple) else self.ratio
        return 0, min(_MAX_RATIO, cast(Fraction, ratio or Fraction(0)) * share)

    def threshold_of(self, turn: int) -> float:
        """The threshold of the ``turn``-th merging layer, from 0."""
        threshold = self.threshold[turn] if isinstance(self.threshold, tuple) else self.threshold
        return parse_threshold(threshold)

    def check_turns(self, turns: int) -> None:
        """Raise UsageError where a list of settings is not as long as there are merging layers."""
        for name in sorted(OPTIONS[self.method]):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != turns:
                raise UsageError(
                    f"--{name} lists {len(value)} values, but {turns} layers merge; give one for each, or one for all"
                )

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
        """JSON-ready settings; a ratio as ``"1/4"``, a k of all tokens as ``"global"``."""
        out = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        out["k"] = "global" if self.k is None else self.k
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MergeConfig:
        """Inverse of :meth:`to_dict`. Raises UsageError for unknown keys."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise UsageError(f"unknown merge setting {unknown[0]!r}; known are: {', '.join(sorted(known))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)

    def __repr__(self) -> str:
        """What it takes to make it again: the settings that are not the default ones."""
        plain = self.to_dict()
        if self.k is None and not self.takes("k"):
            del plain["k"]
        usual = {"similarity": SIMILARITIES[0]} | {
            field.name: field.default for field in fields(self) if field.name not in (*_DESCRIBED, "method")
        }
        names = [*_DESCRIBED, *(name for name in usual if name not in _DESCRIBED)]
        told = [name for name in names if plain.get(name) is not None and plain[name] != usual.get(name)]
        return f"MergeConfig({', '.join([repr(self.method), *(f'{name}={plain[name]!r}' for name in told)])})"

    def describe(self) -> str:
        """One short line for tables and logs, such as ``local k=1 ratio=1/4 min-tokens=4 positions=gather``."""
        if not self.active:
            return "none"
        parts = [self.method]
        for name in _DESCRIBED:
            value = getattr(self, name)
            if self.takes(name) and (value is not None or name == "k") and value != SIMILARITIES[0]:
                parts.append(f"{name.replace('_', '-')}={'global' if value is None else _text(value)}")
        parts += [f"min-tokens={self.min_tokens}", f"positions={self.positions}"]
        if self.causal:
            parts.append("causal")
        if self.metric != "x":
            parts.append(f"metric={self.metric}")
        if self.prop_attn:
            parts.append("prop-attn")
        if self.layers is not None:
            parts.append(f"layers={_text(self.layers)}")
        return " ".join(parts)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read_r(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise UsageError(f"--r {value} is not a whole number") from None
    return whole("--r", value, 0)


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def tokens_removed(
    tokens: int, *, r: int = 0, ratio: Fraction | None = None, min_tokens: int = 0, protected: int = 0
) -> int:
    """r(N), rule R2.4 of docs/specification.md: how many of ``tokens`` one merge step removes.

    Depends on the count alone, in whole numbers (R2.5).
    """
    pairs = max(0, tokens - protected) // 2  # R2.3
    wanted = math.floor(tokens * ratio) if ratio is not None else r  # R2.2
    return min(max(0, wanted), pairs, max(0, tokens - min_tokens))
