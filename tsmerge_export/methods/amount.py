"""How many tokens a step removes, for methods that remove a number or a share: arguments, attributes and the count."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.method import Attributes, Method, Place
from tsmerge_export.settings.config import MergeConfig, tokens_removed
from tsmerge_export.settings.parse import parse_ratio


def read_removed(
    tokens: int,
    r: int | None,
    ratio: Fraction | str | float | None,
    *,
    min_tokens: int,
    protect_first: int,
    protect_last: int,
) -> int:
    """r(N) of a reference's arguments (R2.1); see :func:`~tsmerge_export.settings.config.tokens_removed`.

    Where it is 0 every reference gives back what it got (R2.6).

    Raises:
        UsageError: both or none of r and ratio, or an argument out of range.
    """
    if (r is None) == (ratio is None):
        raise UsageError("give either r or ratio")
    if (r is not None and r < 0) or min(min_tokens, protect_first, protect_last) < 0:
        raise UsageError("r, min_tokens, protect_first and protect_last must not be negative")
    exact = None if ratio is None else parse_ratio(ratio)
    return tokens_removed(
        tokens, r=r or 0, ratio=exact, min_tokens=min_tokens, protected=protect_first + protect_last
    )


def amount_attributes(config: MergeConfig, place: Place) -> Attributes:
    """The attributes of one step that say how many go; ``run_time`` only where the ratio is chosen then (R2.7)."""
    r, ratio = config.amount(place.turn, place.turns)
    chosen = {"run_time": 1} if config.at_run_time else {}
    return {
        "r": r,
        "ratio_num": ratio.numerator,
        "ratio_den": ratio.denominator,
        "min_tokens": config.min_tokens,
        "protect_first": place.protect_first,
        "protect_last": place.protect_last,
        **chosen,
    }


def amount_options(attributes: Attributes) -> dict[str, Any]:
    """From attributes to arguments of a reference: ``r`` or ``ratio``, and the three bounds."""
    ratio = Fraction(int(attributes["ratio_num"]), int(attributes["ratio_den"]))
    bounds = {name: int(attributes[name]) for name in ("min_tokens", "protect_first", "protect_last")}
    return {**bounds, **({"ratio": ratio} if ratio else {"r": int(attributes["r"])})}


def removed_by(attributes: Attributes, tokens: int) -> int:
    """r(N) of an operator's attributes, in whole numbers alone (R2.4 of docs/specification.md)."""
    options = amount_options(attributes)
    protected = options.pop("protect_first") + options.pop("protect_last")
    return tokens_removed(tokens, protected=protected, **options)


class AmountMethod(Method):
    """What methods share that remove a number or a share of the tokens: attributes, and what follows from them."""

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Those of every such operator."""
        return amount_attributes(config, place)

    def removed(self, attributes: Attributes, tokens: int) -> int:
        """r(N)."""
        return removed_by(attributes, tokens)

    def mark(self, attributes: Attributes, tokens: int) -> tuple[object, ...]:
        """How many go, and how many take part from where on."""
        gone = self.removed(attributes, tokens)
        first, last = int(attributes["protect_first"]), int(attributes["protect_last"])
        return (gone, first, tokens - first - last) if gone else (0,)
