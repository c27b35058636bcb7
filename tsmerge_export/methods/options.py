"""Options that several methods share, each one object; and the rule between those that say how much is merged."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import UsageError
from tsmerge_export.settings import registry
from tsmerge_export.settings.option import AUTO, Choices, Option, one_of
from tsmerge_export.settings.parse import parse_k, parse_ratio, whole
from tsmerge_export.settings.run_time import RunTime, parse_default

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig

DEFAULT_RATIO = Fraction(1, 4)

#: How alike two tokens are, the default first.
SIMILARITIES = ("cosine", "l2", "dot")


def _read_r(value: Any) -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise UsageError(f"--r {value} is not a whole number") from None
    return whole("--r", value, 0)


def _check_r(value: Any) -> None:
    if isinstance(value, int):
        whole("--r", value, 1)
    elif not any(value):
        raise UsageError("--r is 0 for every layer; use --merge none to export without merging")


def _read_ratio(value: Any) -> Fraction | RunTime:
    chosen = value if isinstance(value, RunTime) else parse_default(value) if isinstance(value, str) else None
    return parse_ratio(value) if chosen is None else chosen


def _check_ratio(value: Any) -> None:
    if isinstance(value, tuple) and any(isinstance(one, RunTime) for one in value):
        raise UsageError("--ratio runtime is one ratio for all layers; leave out the list")


def _read_schedule(value: Any) -> str:
    if value not in ("constant", "linear"):
        raise UsageError(f"--schedule {value} is not known; choose constant or linear")
    return str(value)


K = Option(
    "k",
    "K",
    "neighbourhood: 1, 2, ... or global; default: 1",
    parse_k,
    default=1,
    absent=AUTO,
    empty=("global", "all"),
    none="global",
    amount=True,
    search=Choices(("1", "2", "4", "8"), "1"),
)
RATIO = Option(
    "ratio",
    "R",
    "share of tokens to remove: 1/4, 0.25 or 25%, or one for each layer: 1/2,1/4; default: auto, what the model's "
    "family says is safe; runtime or runtime:1/4: an input of the graph, and what it is where nobody chooses",
    _read_ratio,
    per_layer=True,
    check=_check_ratio,
    default=DEFAULT_RATIO,
    kept=(AUTO,),
    excludes="r",
    amount=True,
    search=Choices(("1/20", "1/10", "1/6", "1/4", "1/3", "1/2"), "1/4"),
)
R = Option(
    "r",
    "N",
    "number of tokens to remove, or one for each layer, instead of --ratio",
    _read_r,
    per_layer=True,
    check=_check_r,
    amount=True,
)
SCHEDULE = Option(
    "schedule",
    "HOW",
    "constant (default), or linear: twice the amount down to nothing by depth",
    _read_schedule,
    search=Choices(("constant", "linear"), "constant"),
)
SIMILARITY = Option(
    "similarity",
    "HOW",
    "{methods}: cosine (default), l2 or dot; all from -1 to 1",
    one_of("similarity", SIMILARITIES),
    default=SIMILARITIES[0],
    unsaid=SIMILARITIES[0],
    search=Choices(("cosine", "l2"), "cosine"),
)

#: How much is merged, of methods that remove a number or a share of the tokens.
AMOUNT = (RATIO, R, SCHEDULE)


def check_amount(config: MergeConfig) -> None:
    """The rule that goes with :data:`AMOUNT`."""
    if config.schedule == "linear" and isinstance(config.ratio if config.r is None else config.r, tuple):
        raise UsageError("--schedule linear takes one --ratio or --r for all layers, not a list")
    if not config.at_run_time:
        return
    if config.schedule == "linear":
        raise UsageError("--ratio runtime is one ratio for all layers; leave out --schedule linear")
    if config.spec is None or not config.spec.run_time:
        able = registry.able(lambda one: one.run_time)
        raise UsageError(
            f"--ratio runtime does not go with --merge {config.method}; it goes with --merge {able}"
        )
