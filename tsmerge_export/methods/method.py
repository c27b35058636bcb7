"""What the reference of a merging method is, see :mod:`tsmerge_export.methods`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tsmerge_export.console.one_line import by_fields
from tsmerge_export.methods.combine import Merged
from tsmerge_export.settings.config import MergeConfig

Attributes = Mapping[str, int | float]
"""Attributes of the method's operator."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where in a model a step runs: what a schedule by depth can depend on.

    Attributes:
        layer: index of the merge point. layers: merge points of the model.
        turn: index among the layers that merge. turns: how many merge.
        protect_first, protect_last: tokens at either end that take no part.
    """

    layer: int
    layers: int
    turn: int
    turns: int
    protect_first: int = 0
    protect_last: int = 0


@dataclass(frozen=True)
class Evidence:
    """The scores behind a decision: another decision is right as well where they are closer than float noise.

    Attributes:
        rank, gap: ``[B, P]`` float32, of methods that merge every second token into its best partner by rank: the rank
            of each, and the distance to its second best partner (infinite where there is none).
        margin: ``[B]`` float32, of all others: the smallest difference of two numbers that the row's decision hangs on.
        allows: of methods with a margin that is often small: whether ``(row, kept [M], target [N], noise)`` is a
            decision that scores can lead to which are off by noise / 2. Without it, any decision is, given the margin.
        count: ``[]`` float32, of methods whose number of removed tokens comes from the data, the same for all rows of a
            batch, or that of its longest row: scores must move by at least this before it is another number (infinite:
            it cannot be).
    """

    rank: Tensor | None = None
    gap: Tensor | None = None
    margin: Tensor | None = None
    allows: Callable[[int, Ints, Ints, float], bool] | None = None
    count: Tensor | None = None

    def __repr__(self) -> str:
        return by_fields(self)


class Method(Protocol):
    """A merging method. Its decision must not depend on anything but ``metric``, ``size`` and the attributes."""

    name: str
    op_type: str
    #: Whether it leaves rows of different lengths, the shorter ones with padding behind.
    pads: bool = False

    def attributes(self, config: MergeConfig, place: Place) -> Attributes:
        """Attributes of the operator for one step. Raises UsageError for settings that do not fit the model."""

    def merge(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Merged:
        """One step over ``x [B, N, D]``, comparing ``metric [B, N, Dm]``; ``size [B, N]`` float32 (None: all 1)."""

    def removed(self, attributes: Attributes, tokens: int) -> int:
        """How many of ``tokens`` go. Methods whose number of tokens follows from the data have no such number."""
        raise NotImplementedError(f"{self.name}: how many tokens go follows from the data")

    def mark(self, attributes: Attributes, tokens: int) -> tuple[object, ...]:
        """What a merge of so many tokens does, as far as attributes and number say it: of one mark, one merge.

        Every attribute that the operator's schema says ``counts`` has its say here. Not asked of methods without
        :meth:`removed`.
        """
        raise NotImplementedError(f"{self.name}: how many tokens go follows from the data")

    def evidence(self, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes) -> Evidence:
        """The scores behind the decision of :meth:`merge`."""
