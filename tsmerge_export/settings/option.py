"""One setting of a merging method, described once: argument, flag, search and tables follow from it.

Nothing here needs more than the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tsmerge_export.errors import UsageError
from tsmerge_export.settings.parse import per_layer
from tsmerge_export.settings.run_time import RunTime

#: A value that is left to the family, see :mod:`tsmerge_export.eager.default`.
AUTO = "auto"
#: The settings of all methods, as ``MergeConfig`` has them.
GENERAL = ("min_tokens", "layers", "positions", "causal", "metric", "prop_attn", "protect_newest")


@dataclass(frozen=True)
class Choices:
    """What `tsmerge tune` tries of an option: one of ``values``; ``guess`` is what it begins with."""

    values: tuple[Any, ...]
    guess: Any


@dataclass(frozen=True)
class Span:
    """The same of numbers: from ``low`` to ``high`` in steps, written with as many ``digits``."""

    low: float
    high: float
    step: float
    guess: float
    digits: int = 2


@dataclass(frozen=True)
class Option:
    """One setting. Methods that share it share the object.

    Attributes:
        name: argument of ``MergeConfig`` and key of its dictionary; the flag is the same with dashes.
        metavar: of the flag.
        help: of the flag; ``{methods}`` stands for the methods that take it.
        read: from text or a value to the exact value (hashable, JSON-ready but for Fractions); raises UsageError that
            names the flag.
        per_layer: a list is allowed, one value for each merging layer; ``read`` then reads one of them.
        check: of the whole value, after ``read``; raises UsageError.
        default: what a method that takes it has when nothing is given; None: the method itself says what that means.
        absent: what the argument is when nothing is given.
        kept: words that stand for themselves, and are not read.
        empty: values that ask for nothing, so that a method without the option does not mind them.
        excludes: another option, which cannot be given too, and with which there is no ``default``.
        none: how a None reads that means something.
        unsaid: a value that goes without saying in descriptions.
        amount: it says how much is merged: commands that repeat a run name it even where it is the default.
        search: what `tsmerge tune` tries; None: the default alone.
        switch: it is true or false: its flag has no value.
    """

    name: str
    metavar: str
    help: str
    read: Callable[[Any], Any]
    per_layer: bool = False
    check: Callable[[Any], None] | None = None
    default: Any = None
    absent: Any = None
    kept: tuple[Any, ...] = ()
    empty: tuple[Any, ...] = ()
    excludes: str | None = None
    none: str | None = None
    unsaid: Any = None
    amount: bool = False
    search: Choices | Span | None = None
    switch: bool = False

    @property
    def flag(self) -> str:
        """``--prune-share`` of ``prune_share``."""
        return flag(self.name)

    def given(self, value: Any) -> bool:
        """Whether a value asks for something."""
        return value is not None and value not in (self.absent, *self.empty)

    def settle(self, value: Any, *, taken: bool = True, excluded: bool = False) -> Any:
        """The exact value of an argument.

        Args:
            value: as the user gave it, or ``absent``.
            taken: whether the method has this option. excluded: whether the option that it excludes was given.

        Raises:
            UsageError: it cannot be read, or is out of range.
        """
        if value == self.absent:
            value = self.default if taken and not excluded else None
        if value is None or value in self.kept:
            return value
        exact = per_layer(value, self.read) if self.per_layer else self.read(value)
        if self.check is not None:
            self.check(exact)
        return exact

    def word(self, value: Any) -> str | None:
        """``ratio=1/4``; None where there is nothing to say."""
        if (value is None and self.none is None) or (value is not None and value == self.unsaid):
            return None
        name = self.name.replace("_", "-")
        return name if self.switch else f"{name}={self.none if value is None else text(value)}"


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def one_of(name: str, choices: Iterable[str]) -> Callable[[Any], str]:
    """A reader of one of a few words."""
    known = tuple(choices)

    def read(value: Any) -> str:
        if value not in known:
            raise UsageError(f"{flag(name)} {value} is not known; choose one of: {', '.join(known)}")
        return str(value)

    return read


def plain(value: Any) -> Any:
    """JSON-ready: a Fraction as ``"1/4"``, one of run time as ``"runtime:1/4"``, a tuple as a list."""
    if isinstance(value, Fraction | RunTime):
        return str(value)
    return [plain(item) for item in value] if isinstance(value, tuple) else value


def text(value: Any) -> str:
    """As on the command line: a list with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
