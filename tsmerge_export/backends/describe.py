"""What a back end says about a bundle: blocks without markup, which the card, the page and the terminal lay out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        caveat: whether the reader must know it before any figure.
        told: the same in lines for stderr, where a command made the bundle.
    """

    text: str
    caveat: bool = False
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Heading:
    """A heading within the section."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command or a program."""

    text: str


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        header: the first cell is the title of the rows' names. short: that of the terminal, which prints the table;
            empty: it does not.
    """

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    short: str = ""


Block: TypeAlias = Text | Heading | Code | Grid
