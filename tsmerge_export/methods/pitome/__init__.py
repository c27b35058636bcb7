"""PiToMe: tokens that have many alike merge, informative ones stay (arXiv 2405.16148, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsmerge_export.errors import UsageError
from tsmerge_export.methods.options import AMOUNT, check_amount
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Choices, Option, one_of
from tsmerge_export.settings.parse import number

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig

#: What a token's energy can be summed from, the default first.
ENERGIES = ("elu", "gaussian")
#: Largest alpha: with more, what is alike would no longer count in float32.
ALPHA_MOST = 1_000_000.0

MARGIN = Option(
    "margin",
    "M",
    "{methods}: cosine from which tokens are alike, or one for each layer; default: 0.9 falling by depth",
    lambda value: number("--margin", value, -1, 1),
    per_layer=True,
)
ALPHA = Option(
    "alpha",
    "A",
    "{methods}: weight of tokens that are not alike; default: 1",
    lambda value: number("--alpha", value, 0, ALPHA_MOST),
)
ENERGY = Option(
    "energy",
    "HOW",
    "{methods}: elu (default) or gaussian",
    one_of("energy", ENERGIES),
    search=Choices(ENERGIES, ENERGIES[0]),
)


def _check_alpha(config: MergeConfig) -> None:
    if config.energy == "gaussian" and config.alpha is not None:
        raise UsageError("--alpha has no effect with --energy gaussian; leave it out")


METHOD = MethodSpec(
    name="pitome",
    source="arXiv 2405.16148",
    keeps="tokens of low energy (few others are alike), bit for bit; of the 2r most redundant ones one half goes into "
    "the other; order",
    cost="quadratic",
    reference="tsmerge_export.methods.pitome.reference:PitomeMethod",
    operator="tsmerge_export.methods.pitome.operator",
    op_type="PitomeMerge",
    options=(*AMOUNT, MARGIN, ALPHA, ENERGY),
    rules=(check_amount, _check_alpha),
    run_time=True,
)
