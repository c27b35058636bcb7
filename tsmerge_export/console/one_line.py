"""Reprs of one line: what an object is, in a prompt, a log or an assertion; never what it holds."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import PurePath
from reprlib import Repr
from typing import Any

_PACKAGE = __name__.partition(".")[0]


class _Short(Repr):
    """Text and containers are cut. Arrays are their dtype and shape, foreign objects their class."""

    def repr_instance(self, x: Any, level: int) -> str:
        if x is None or isinstance(x, (bool, float)):
            return repr(x)
        if isinstance(x, Fraction):
            return repr(str(x))
        if isinstance(x, PurePath):
            return repr(str(x))  # whole: it is what a user looks for
        if isinstance(x, type):
            return x.__name__
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is not None and dtype is not None:
            return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
        ours = type(x).__module__.partition(".")[0] == _PACKAGE
        return repr(x) if ours else type(x).__name__


_short = _Short()
_short.maxstring, _short.maxlevel = 60, 3
_short.maxlist = _short.maxtuple = _short.maxset = _short.maxfrozenset = _short.maxdict = 4

#: A value in few words, without a line break.
short = _short.repr


def called(kind: str, /, *values: Any, **named: Any) -> str:
    """``kind(value, name=value)``, every value short."""
    parts = [*map(short, values), *(f"{name}={short(value)}" for name, value in named.items())]
    return f"{kind}({', '.join(parts)})"


def by_fields(self: Any) -> str:
    """The repr of a dataclass or a named tuple: its fields, every value short; those of ``repr=False`` left out."""
    if dataclasses.is_dataclass(self):
        names = [field.name for field in dataclasses.fields(self) if field.repr]
    else:
        names = list(self._fields)
    return called(type(self).__name__, **{name: getattr(self, name) for name in names})
