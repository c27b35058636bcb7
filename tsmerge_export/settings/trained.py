"""What weights were trained for: the merge settings that a checkpoint's config carries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tsmerge_export import typed
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.parse import parse_ratio
from tsmerge_export.settings.precision import FP32, TRAINABLE

#: Of config.json, at its top level.
KEY = "tsmerge"
#: A loss that moves by less than this where the weights run unmerged is no reason for a warning.
HARMLESS = 0.01
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "train it again, or take that key out to use the weights without it"


@dataclass(frozen=True)
class Written:
    """A :class:`Trained` as JSON has it: its types are checked, its values are not."""

    merge: dict[str, Any]
    elastic: tuple[str, ...] = ()
    unmerged: float | None = None
    teacher: str | None = None
    precision: str = FP32


@dataclass(frozen=True)
class Trained:
    """Weights that were trained with merging applied.

    Attributes:
        merge: the settings; with several ratios, that of the default one.
        elastic: all the ratios that were trained, ascending, 0 for unmerged; empty where there was one setting only.
        unmerged: relative change of the loss when the weights run unmerged, against the unmerged weights before
            training, measured on validation data: 1.04 is +104 %. None: not measured.
        teacher: SHA-256 of the weights of the model that these were distilled from, in hexadecimal, see
            :func:`~tsmerge_export.checkpoint.weights.digest`. None: not known, as in files of earlier versions.
        precision: of the files that they were trained for, rounded as there; ``fp32`` is not rounded.

    Raises:
        UsageError: ``merge`` merges nothing or leaves its ratio open, or ``elastic`` are no ratios of it.
    """

    merge: MergeConfig
    elastic: tuple[Fraction, ...] = ()
    unmerged: float | None = None
    teacher: str | None = None
    precision: str = FP32

    def __post_init__(self) -> None:
        if not self.merge.active:
            raise UsageError("merge has the method none; weights are trained for a method that merges")
        if self.merge.open:
            raise UsageError("merge has no ratio; weights are trained for one that is known")
        if self.unmerged is not None and not math.isfinite(self.unmerged):
            raise UsageError("unmerged is no finite number")
        if self.teacher is not None and not _SHA256.fullmatch(self.teacher):
            raise UsageError("teacher is no SHA-256: 64 digits from 0 to f")
        if self.precision not in (FP32, *TRAINABLE):
            raise UsageError(f"precision is none of {', '.join((FP32, *TRAINABLE))}")
        if not self.elastic:
            return
        object.__setattr__(self, "elastic", tuple(sorted({_share(ratio) for ratio in self.elastic})))
        if self.merge.ratio not in self.elastic:
            raise UsageError(
                "elastic needs a merge with one ratio for all layers, which is among the elastic ones"
            )

    @property
    def needs_merging(self) -> bool:
        """Whether the weights are worse unmerged, as far as is known."""
        if 0 in self.elastic:
            return False
        return self.unmerged is None or self.unmerged > HARMLESS

    def settings(self) -> tuple[MergeConfig, ...]:
        """Every setting that merges and was trained: ``merge`` first, then the elastic ones by ratio."""
        others = (replace(self.merge, ratio=ratio) for ratio in self.elastic if ratio)
        return (self.merge, *(merge for merge in others if merge != self.merge))

    def describe(self) -> str:
        """``local k=1 ratio=1/2 ..``, with the other ratios behind it, and a precision below float32."""
        words = self.merge.describe()
        words += f" (elastic: {', '.join(map(str, self.elastic))})" if self.elastic else ""
        return words if self.precision == FP32 else f"{words} in {self.precision}"

    def written(self) -> Written:
        """As config.json and manifests hold it."""
        elastic = tuple(map(str, self.elastic))
        return Written(self.merge.to_dict(), elastic, self.unmerged, self.teacher, self.precision)

    def to_dict(self) -> dict[str, Any]:
        """:meth:`written`, JSON-ready."""
        content: dict[str, Any] = typed.plain(self.written())
        return content

    @classmethod
    def from_dict(cls, raw: object, file: object = "config.json", key: str = KEY) -> Trained:
        """Inverse of :meth:`to_dict`, of what a file says.

        Args:
            file, key: named in messages.

        Raises:
            UsageError: a field is missing, of another type or no such setting; one line.
        """
        return cls.of(typed.read(Written, raw, file, key, _REMEDY), file, key)

    @classmethod
    def of(cls, written: Written, file: object, key: str) -> Trained:
        """What a file says, once its types are checked. Raises UsageError as :meth:`from_dict`."""
        try:
            elastic = tuple(map(_share, written.elastic))
            merge = MergeConfig.from_dict(written.merge)
            return cls(merge, elastic, written.unmerged, written.teacher, written.precision)
        except UsageError as error:
            raise UsageError(f"{file}: {key}: {error}; {_REMEDY}") from None


def _share(ratio: Fraction | str | float) -> Fraction:
    """A ratio, or 0. Raises UsageError."""
    return Fraction(0) if ratio in (0, "0") else parse_ratio(ratio)


def trained_in(config: Mapping[str, Any], file: object = "config.json") -> Trained | None:
    """What a config says of its weights; None where it says nothing. Raises UsageError as :meth:`Trained.from_dict`."""
    raw = config.get(KEY)
    return None if raw is None else Trained.from_dict(raw, file)
