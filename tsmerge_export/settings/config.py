"""What to merge, where and how much: the settings a user gives, checked once, kept exactly.

What a method takes, and how it is read, the method says (:mod:`tsmerge_export.settings.registry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from tsmerge_export.console.one_line import short
from tsmerge_export.errors import UsageError
from tsmerge_export.settings import registry
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import AUTO, GENERAL, Option, flag, plain, text
from tsmerge_export.settings.parse import whole
from tsmerge_export.settings.run_time import RunTime

Positions = Literal["gather", "compact"]

Schedule = Literal["constant", "linear"]
Metric = Literal["x", "key", "hidden"]

DEFAULT_METHOD = registry.DEFAULT
_MAX_RATIO = Fraction(1, 2)

ClassT = TypeVar("ClassT", bound=type)


class Own(Mapping[str, Any]):
    """Settings by name that do not change, and so have a hash."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def _keywords(cls: ClassT) -> ClassT:
    """Let the constructor take options of plug-ins by name, besides its own arguments."""
    made: Callable[..., None] = cls.__dict__["__init__"]
    own = {entry.name for entry in fields(cls)}

    @wraps(made)
    def init(self: Any, *args: Any, **given: Any) -> None:
        more = {name: given.pop(name) for name in [*given] if name not in own}
        if more:
            given["options"] = {**given.get("options", {}), **more}
        made(self, *args, **given)

    cls.__init__ = init  # type: ignore[misc]
    return cls


@_keywords
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
            sequence with one for each merging layer; or ``"auto"``, what the model's family says is safe; or
            ``"runtime:1/4"``, chosen whenever the exported file runs, 1/4 where nobody chooses (``"runtime"``: what the
            family says is safe).
        r: number of tokens that each merge step removes, >= 1, or a sequence with one (>= 0) for each merging layer;
            excludes ``ratio``. With neither given, ratio 1/4.
        schedule: ``"constant"``, or ``"linear"``: from twice the amount at the first merging layer to nothing at the
            last (ToMe, appendix), at most half of the tokens.
        threshold: of dynamic merging: each merge step removes as many tokens as have a similarity above this, from -1
            to 1, on average over the batch; or a sequence with one for each merging layer. Default 0.9.
        similarity: of local, global and dynamic merging, ``"cosine"`` (default), ``"l2"`` or ``"dot"``; all from -1
            to 1 (see :mod:`tsmerge_export.methods.similarity`).
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
            no slot from a later token (see :func:`~tsmerge_export.methods.local.reference.local_merge` for what
            exactly holds).
        metric: what is compared: ``"x"``, the tokens themselves; ``"key"``, the keys of the attention just computed,
            averaged over its heads (ToMe, section 3); or ``"hidden"``, the hidden states of a state-space block: what
            it computed, before its residual is added (arXiv 2410.14725, section 4).
        prop_attn: proportional attention (ToMe, section 3): the logarithm of its size is added to the score of every
            merged token that a later layer, or a decoder, attends to; a token of size s then counts s times.
        options: the settings of a plug-in's method that are none of these, by name; they may be given as arguments of
            their own, too: ``MergeConfig("theirs", its_option=3)``.
        protect_newest: so many of the newest tokens, those at the end, take part in no merge, beside the special ones
            that a model protects anyway, >= 0.
        per_series: of dynamic merging, each row of a batch merges by its own count, so that a forecast does not depend
            on what is beside it; shorter rows end in padding. Needs ``positions="gather"``.

    Raises:
        UsageError: a setting is out of range, contradicts another, or belongs to another method.
    """

    method: str = DEFAULT_METHOD
    k: int | str | None = "auto"
    ratio: Fraction | str | float | tuple[Fraction, ...] | RunTime | None = None
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
    options: Mapping[str, Any] = field(default_factory=dict)
    per_series: bool | None = None
    protect_newest: int = 0

    def __post_init__(self) -> None:
        spec = self.spec
        if self.positions not in ("gather", "compact"):
            raise UsageError(f"--positions {self.positions} is not known; choose gather or compact")
        if self.metric not in ("x", "key", "hidden"):
            raise UsageError(f"--metric {self.metric} is not known; choose x, key or hidden")
        for name in ("causal", "prop_attn"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{flag(name)} is {short(getattr(self, name))}, which is not true or false")
        self._refuse_others(spec)
        self._settle(spec)
        if self.causal and not (spec is not None and spec.causal and self.k == 1):
            able = registry.able(lambda one: one.causal)
            raise UsageError(
                f"--causal needs --merge {able} with --k 1, where a token only goes into its direct successor"
            )
        for rule in spec.rules if spec is not None else ():
            rule(self)
        whole("--min-tokens", self.min_tokens, 0)
        whole("--protect-newest", self.protect_newest, 0)
        if self.layers is not None:
            layers = tuple(sorted({whole("--layers", i, 0) for i in self.layers}))
            if not layers:
                raise UsageError(
                    "--layers is empty; give layer indices such as 0,1,2, or leave it out for all"
                )
            object.__setattr__(self, "layers", layers)

    @property
    def spec(self) -> MethodSpec | None:
        """What the method says about itself; None for ``method="none"``. Raises UsageError for an unknown method."""
        return registry.spec(self.method) if self.active else None

    def get(self, name: str) -> Any:
        """The value of an option; None where the method does not have it."""
        return self.options.get(name) if name not in _NAMES else getattr(self, name)

    def at(self, name: str, turn: int) -> Any:
        """The value of an option at the ``turn``-th merging layer, from 0: of a list its own, else that of all."""
        value = self.get(name)
        return value[turn] if isinstance(value, tuple) else value

    def _owned(self, names: Iterable[str]) -> bool:
        """Whether all these are options of some method that is installed."""
        mine = {option.name for option in self._own_options()}
        return mine.issuperset(names) or {o.name for o in registry.options(registry.specs())}.issuperset(
            names
        )

    def _own_options(self) -> tuple[Option, ...]:
        return () if self.spec is None else self.spec.options

    def _refuse_others(self, spec: MethodSpec | None) -> None:
        """Refuse what belongs to another method, or to none."""
        if self.options and not self._owned(self.options):
            name = next(name for name in self.options if not self._owned((name,)))
            raise TypeError(f"MergeConfig() got an unexpected keyword argument {name!r}")
        if spec is None:
            return
        mine = {option.name for option in spec.options}
        others = [option for option in registry.built_in_options() if option.name not in mine]
        wrong = [option.flag for option in others if option.given(self.get(option.name))]
        wrong += [
            flag(name) for name, value in self.options.items() if name not in mine and value is not None
        ]
        if wrong:
            takes = ", ".join(flag(name) for name in sorted(mine)) or "none"
            raise UsageError(
                f"{min(wrong)} has no effect with --merge {self.method}, whose own settings are: {takes}; leave it out"
            )

    def _settle(self, spec: MethodSpec | None) -> None:
        """Put exact values, and defaults, in the place of what was given."""
        mine = self._own_options()
        for option in mine:
            if option.excludes is not None and None not in (self.get(option.name), self.get(option.excludes)):
                raise UsageError(
                    f"{flag(option.excludes)} and {option.flag} exclude each other; give one of them"
                )
        known = {option.name: option for option in (*registry.built_in_options(), *mine)}
        own = {}
        for option in known.values():
            excluded = option.excludes is not None and self.get(option.excludes) is not None
            value = option.settle(self._given(option), taken=option in mine, excluded=excluded)
            if option.name in _NAMES:
                object.__setattr__(
                    self, option.name, value
                )  # the dataclass is frozen; this is its own constructor
            else:
                own[option.name] = value
        object.__setattr__(self, "options", Own(own))

    def _given(self, option: Option) -> Any:
        return (
            self.get(option.name) if option.name in _NAMES else self.options.get(option.name, option.absent)
        )

    @property
    def active(self) -> bool:
        """False for ``method="none"``."""
        return self.method != "none"

    @property
    def open(self) -> bool:
        """Whether the ratio is left to the family: no model can be merged by it before that is settled."""
        return self.ratio == AUTO or (self.at_run_time and self.ratio.default is None)  # type: ignore[union-attr]

    @property
    def at_run_time(self) -> bool:
        """Whether the ratio is chosen when an exported file runs: an input of its graph."""
        return isinstance(self.ratio, RunTime)

    @property
    def default_ratio(self) -> Fraction | None:
        """Of a ratio that is chosen at run time, what it is where nobody chooses; None for all others."""
        return self.ratio.default if isinstance(self.ratio, RunTime) else None

    def fixed(self, ratio: Fraction) -> MergeConfig:
        """The same settings with one ratio and no other; a ratio of 0 is not to merge.

        What a file whose ratio is chosen at run time must compute when it is given that ratio.
        """
        return replace(self, ratio=ratio) if ratio else MergeConfig("none")

    def takes(self, option: str) -> bool:
        """Whether the method has this setting."""
        return option in {own.name for own in self._own_options()}

    def amount(self, turn: int, turns: int) -> tuple[int, Fraction]:
        """(r, ratio) of one step, one of them 0: the ``turn``-th of ``turns`` merging layers, from 0.

        The linear schedule gives ``2 * amount * (turns - 1 - turn) / (turns - 1)``; r is rounded down.
        """
        if self.open:
            raise ValueError(
                "the ratio is left to the family; settle it first (tsmerge_export.eager.default)"
            )
        share = Fraction(1)
        if self.schedule == "linear" and turns > 1:
            share = Fraction(2 * (turns - 1 - turn), turns - 1)
        if self.r is not None:
            r = self.r[turn] if isinstance(self.r, tuple) else int(self.r)
            return int(r * share), Fraction(0)
        ratio = self.ratio[turn] if isinstance(self.ratio, tuple) else self.default_ratio or self.ratio
        return 0, min(_MAX_RATIO, cast(Fraction, ratio or Fraction(0)) * share)

    def threshold_of(self, turn: int) -> float:
        """The threshold of the ``turn``-th merging layer, from 0."""
        return float(self.at("threshold", turn))

    def check_turns(self, turns: int) -> None:
        """Raise UsageError where a list of settings is not as long as there are merging layers."""
        for option in sorted(self._own_options(), key=lambda option: option.name):
            value = self.get(option.name)
            if option.per_layer and isinstance(value, tuple) and len(value) != turns:
                raise UsageError(
                    f"{option.flag} lists {len(value)} values, but {turns} layers merge; give one for each, or one for "
                    "all"
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
        """JSON-ready settings; a ratio as ``"1/4"``, a k of all tokens as ``"global"``. Options of plug-ins by name."""
        out = {name: plain(getattr(self, name)) for name in _NAMES}
        out |= {name: plain(value) for name, value in self.options.items()}
        for option in registry.built_in_options():
            if out[option.name] is None and option.none is not None:
                out[option.name] = option.none
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MergeConfig:
        """Inverse of :meth:`to_dict`, of what a file says, too. Raises UsageError for what is no setting."""
        try:
            method = data.get("method", DEFAULT_METHOD)
            own = () if method == registry.NONE else registry.spec(method).options
            known = {*_NAMES, *(option.name for option in own)}
            unknown = sorted(set(data) - known)
            if unknown:
                raise UsageError(
                    f"unknown merge setting {short(unknown[0])}; known are: {', '.join(sorted(known))}"
                )
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**values)
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"merge settings cannot be read: {' '.join(str(error).split())}") from None

    def __repr__(self) -> str:
        """What it takes to make it again: the settings that are not the default ones."""
        all_of_it = self.to_dict()
        told = {}
        for option in self._own_options() or registry.built_in_options():
            value = all_of_it[option.name]
            if value not in (None, option.unsaid, option.none if not self.active else None):
                told[option.name] = value
        usual = {entry.name: entry.default for entry in fields(self)}
        told |= {name: all_of_it[name] for name in GENERAL if all_of_it[name] not in (None, usual[name])}
        return f"MergeConfig({', '.join([repr(self.method), *(f'{name}={value!r}' for name, value in told.items())])})"

    def brief(self) -> str:
        """:meth:`describe` without what is usual: ``local k=1 ratio=1/4``."""
        return self.describe().replace(" min-tokens=4", "").replace(" positions=gather", "")

    def describe(self) -> str:
        """One short line for tables and logs, such as ``local k=1 ratio=1/4 min-tokens=4 positions=gather``."""
        if not self.active:
            return registry.NONE
        words = [option.word(self.get(option.name)) for option in self._own_options()]
        parts = [self.method, *(word for word in words if word is not None)]
        parts += [f"min-tokens={self.min_tokens}", f"positions={self.positions}"]
        if self.causal:
            parts.append("causal")
        if self.metric != "x":
            parts.append(f"metric={self.metric}")
        if self.prop_attn:
            parts.append("prop-attn")
        if self.protect_newest:
            parts.append(f"protect-newest={self.protect_newest}")
        if self.layers is not None:
            parts.append(f"layers={text(self.layers)}")
        return " ".join(parts)


# The names of the constructor's own arguments.
_NAMES = tuple(entry.name for entry in fields(MergeConfig) if entry.name != "options")


def tokens_removed(
    tokens: int, *, r: int = 0, ratio: Fraction | None = None, min_tokens: int = 0, protected: int = 0
) -> int:
    """r(N), rule R2.4 of docs/specification.md: how many of ``tokens`` one merge step removes.

    Depends on the count alone, in whole numbers (R2.5).
    """
    # R2.2, floored.
    wanted = tokens * ratio.numerator // ratio.denominator if ratio is not None else r
    # Branches, not min() and max(), and no product with a Fraction: to torch.compile `tokens` may be a symbol, and
    # bounds within bounds of several layers keep its algebra busy for minutes.
    for most in ((tokens - protected) // 2, tokens - min_tokens):  # R2.3
        if wanted > most:
            wanted = most
    return wanted if wanted > 0 else 0
