"""Token reduction for state-space models: what is unimportant is merged or pruned (arXiv 2410.14725, section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.options import AMOUNT, check_amount
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Choices, Option
from tsmerge_export.settings.parse import MAX_DENOMINATOR, exact

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig

DEFAULT_PRUNE_SHARE = Fraction(1, 2)


def parse_share(value: str | float | Fraction, flag: str = "--prune-share") -> Fraction:
    """Read the share of tokens to prune as an exact fraction from 0 to 1. Raises UsageError for anything else."""
    try:
        share = exact(value)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{flag} {value} is not a number; write it as 1/2 or 0.5") from None
    if not 0 <= share <= 1:
        raise UsageError(f"{flag} {value} is out of range; it must be from 0 (merge all) to 1 (prune all)")
    if share.denominator > MAX_DENOMINATOR:
        raise UsageError(f"{flag} {value} has more than six decimals; write it as a fraction such as 1/3")
    return share


PRUNE_SHARE = Option(
    "prune_share",
    "Q",
    "{methods}: share of the removed tokens that is pruned, not merged, 0 to 1; default: 1/2",
    parse_share,
    default=DEFAULT_PRUNE_SHARE,
    search=Choices(("0", "1/2", "1"), "1/2"),
)
RESIDUAL_PRUNE_SHARE = Option(
    "residual_prune_share",
    "Q",
    "{methods} with --metric hidden: the same for the residual; --prune-share is then for the hidden states",
    lambda value: parse_share(value, "--residual-prune-share"),
)


def _check_residual(config: MergeConfig) -> None:
    if config.residual_prune_share is not None and config.metric != "hidden":
        raise UsageError(
            "--residual-prune-share needs --metric hidden, where hidden states and residual are apart; add it"
        )


def _caption(merge: Mapping[str, Any]) -> str | None:
    share = merge.get("prune_share")
    if share in (None, "0"):
        return None
    return f"Of the tokens removed the share {share} was pruned: these are drawn where they are read from."


METHOD = MethodSpec(
    name="ssm",
    source="arXiv 2410.14725",
    keeps="the important half (sum of the positive features); of the other half those least like it; of what goes, a "
    "share is pruned, the rest merged into the important token most like it; order",
    cost="quadratic",
    reference="tsmerge_export.methods.ssm.reference:SsmMethod",
    operator="tsmerge_export.methods.ssm.operator",
    op_type="SsmMerge",
    options=(*AMOUNT, PRUNE_SHARE, RESIDUAL_PRUNE_SHARE),
    rules=(check_amount, _check_residual),
    run_time=True,
    caption=_caption,
)
