"""The one shape that a file is made for: series of a call, and steps or tokens of each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tsmerge_export.errors import UsageError

FLAG = "--static"
#: Of either number: beyond it no tensor fits anywhere.
_MOST = 2**24


@dataclass(frozen=True)
class OneShape:
    """As ``8x512``.

    Attributes:
        batch: series of a call. length: steps of each, or tokens of a graph from a file.

    Raises:
        UsageError: a number that is no size.
    """

    batch: int
    length: int

    def __post_init__(self) -> None:
        if not all(0 < size <= _MOST for size in (self.batch, self.length)):
            raise UsageError(f"{FLAG} {self}: batch and length must be whole numbers from 1 to {_MOST}")

    def __str__(self) -> str:
        return f"{self.batch}x{self.length}"

    @classmethod
    def parse(cls, text: str) -> OneShape:
        """The inverse of ``str``. Raises UsageError for anything else."""
        found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text, re.ASCII)
        if found is None:
            raise UsageError(
                f"{FLAG} {text}: must be BATCHxLENGTH, such as 8x512: series of a call and steps of each"
            )
        return cls(*map(int, found.groups()))
