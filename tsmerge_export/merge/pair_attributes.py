"""Attributes that LocalMerge and DynamicMerge have in common, between a config and the reference."""

from __future__ import annotations

from torch import Tensor

from tsmerge_export.config import SIMILARITIES, MergeConfig
from tsmerge_export.merge.matching import ranks
from tsmerge_export.merge.method import Attributes


def similarity_attribute(config: MergeConfig) -> Attributes:
    """The attribute ``similarity``, an index into SIMILARITIES; left out where it is the default, cosine."""
    number = SIMILARITIES.index(config.similarity or SIMILARITIES[0])
    return {"similarity": number} if number else {}


def similarity_named(attributes: Attributes) -> str:
    """The name of the similarity that an operator's attributes ask for."""
    return SIMILARITIES[int(attributes.get("similarity", 0))]


def ranks_of(metric: Tensor, size: Tensor | None, attributes: Attributes) -> tuple[Tensor, Tensor]:
    """:func:`~tsmerge_export.merge.matching.ranks` by an operator's attributes."""
    return ranks(
        metric,
        size,
        k=int(attributes["k"]) or None,
        similarity=similarity_named(attributes),
        protect_first=int(attributes["protect_first"]),
        protect_last=int(attributes["protect_last"]),
    )
