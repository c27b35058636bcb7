"""JSON as dataclasses: what a file says is checked field by field before anything else sees it.

A dataclass says what it takes by the types of its fields: ``str``, ``bool``, ``int``, ``float``, ``Any``, dataclasses,
``tuple[X, ...]`` for lists, ``dict[str, X]`` for objects, and unions of these. A field that is not there has its
default; what no field asks for is left alone, as a later version may say more.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tsmerge_export.console.one_line import short
from tsmerge_export.errors import UsageError

T = TypeVar("T")

_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


class _Unfit(Exception):
    """What is wrong with a field, in words."""


def read(
    kind: type[T], content: Any, file: object, field: str = "", remedy: str = "export the bundle again"
) -> T:
    """Read an object of a file.

    Args:
        kind: a dataclass. content: what JSON has there. file: named in messages. field: where in the file it stands.
        remedy: what to do about a field that does not fit.

    Raises:
        UsageError: a field is missing or of another type; one line that names the file and the field.
    """
    try:
        found: T = _read(kind, content, field)
    except _Unfit as error:
        raise UsageError(f"{file}: {error}; {remedy}") from None
    return found


def plain(value: Any) -> Any:
    """The inverse: dataclasses as dicts of all their fields, tuples as lists, JSON-ready."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type and whether it must be there, of each field."""
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        (one.name, hints[one.name], one.default is missing and one.default_factory is missing)
        for one in dataclasses.fields(kind)
    )


def _read(kind: Any, value: Any, field: str) -> Any:
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        kind = next((one for one in get_args(kind) if _fits(one, value)), kind)
        origin = get_origin(kind)
    if not _fits(kind, value):
        raise _Unfit(f"{field or 'its content'} is {short(value)}, expected {_words(kind)}")
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, value, field)
    if origin is tuple:
        item = get_args(kind)[0]
        if _is_basic(item) and all(
            _fits(item, one) for one in value
        ):  # thousands of numbers: no name for each
            return tuple(map(float, value)) if item is float else tuple(value)
        return tuple(_read(item, one, f"{field}[{index}]") for index, one in enumerate(value))
    if origin is dict:
        item = get_args(kind)[1]
        return {key: _read(item, one, _below(field, key)) for key, one in value.items()}
    return float(value) if kind is float else value


def _read_fields(kind: Any, value: Mapping[str, Any], field: str) -> Any:
    given = {}
    for name, hint, needed in _fields(kind):
        if name in value:
            given[name] = _read(hint, value[name], _below(field, name))
        elif needed:
            raise _Unfit(f"{_below(field, name)} is missing")
    return kind(**given)


def _below(field: str, name: str) -> str:
    if not name.isidentifier():
        return f"{field}[{short(name)}]"
    return f"{field}.{name}" if field else name


@cache
def _is_basic(kind: Any) -> bool:
    """Whether values of a type are kept as JSON has them, or are numbers."""
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return all(part in _WORDS for part in parts)


def _fits(kind: Any, value: Any) -> bool:
    """Whether the value itself is of a type; what it holds is looked at later."""
    origin = get_origin(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(one, value) for one in get_args(kind))
    if origin is tuple:
        return isinstance(value, list | tuple)
    if origin is dict or dataclasses.is_dataclass(kind):
        return isinstance(value, dict)
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and _is_finite(value)
    return isinstance(value, kind)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float holds
        return False


def _words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(one) for one in get_args(kind))
    if origin is tuple:
        return "a list"
    return _WORDS.get(kind, "an object")
