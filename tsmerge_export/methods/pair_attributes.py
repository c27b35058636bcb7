"""Attributes that LocalMerge and DynamicMerge have in common, between a config and the reference."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tsmerge_export.methods.matching import ranks
from tsmerge_export.methods.method import Attributes, Place
from tsmerge_export.methods.options import SIMILARITIES
from tsmerge_export.settings.config import MergeConfig


def pair_attributes(config: MergeConfig, place: Place) -> Attributes:
    """The attributes of one step; k = 0 stands for global; ``similarity`` and ``causal`` only where not the default.

    In causal merging the first token stays: there is none before it whose output could stand for it.
    """
    out = {
        "k": 0 if config.k is None else int(config.k),
        "min_tokens": config.min_tokens,
        "protect_first": max(place.protect_first, int(config.causal)),
        "protect_last": place.protect_last,
    }
    similarity = SIMILARITIES.index(config.similarity or SIMILARITIES[0])
    return {
        **out,
        **({"similarity": similarity} if similarity else {}),
        **({"causal": 1} if config.causal else {}),
    }


def pair_options(attributes: Attributes) -> dict[str, Any]:
    """From attributes to arguments of the reference, where the two differ."""
    return {
        "k": int(attributes["k"]) or None,
        "similarity": SIMILARITIES[int(attributes.get("similarity", 0))],
        "causal": bool(attributes.get("causal", 0)),
    }


def ranks_of(metric: Tensor, size: Tensor | None, attributes: Attributes) -> tuple[Tensor, Tensor]:
    """:func:`~tsmerge_export.methods.matching.ranks` by an operator's attributes."""
    options = pair_options(attributes)
    options |= {name: int(attributes[name]) for name in ("protect_first", "protect_last")}
    return ranks(metric, size, **options)
