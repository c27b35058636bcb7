"""JSON as dataclasses: what a file says is checked field by field before anything else sees it.

A dataclass says what it takes by the types of its fields: ``str``, ``bool``, ``int``, ``float``, ``Any``, dataclasses,
``tuple[X, ...]`` for lists, ``dict[str, X]`` for objects, and unions of these. A field that is not there has its
default; what no field asks for is left alone, as a later version may say more.

:func:`plain` and :func:`written` are the inverse: all fields, or those that there is something to say of. Metadata of a
field say more: :data:`SPARSE` of one that is left out where it has its default, :data:`REST` of a ``dict[str, Any]``
that holds what no other field asks for.
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

#: Metadata of a field that :func:`written` leaves out where it has its default.
SPARSE: Mapping[str, bool] = types.MappingProxyType({"sparse": True})
#: Metadata of a field for everything that no other field asks for. It has no name of its own in JSON.
REST: Mapping[str, bool] = types.MappingProxyType({"rest": True})

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
    return _plain(value, sparse=False)


def written(value: Any) -> Any:
    """The inverse as files have it: :func:`plain` without the fields of :data:`SPARSE` that have their default."""
    return _plain(value, sparse=True)


def finite(value: float) -> float | None:
    """A number as JSON has it, which knows no infinity and no NaN."""
    return value if math.isfinite(value) else None


def _plain(value: Any, sparse: bool) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: dict[str, Any] = {}
        for one in dataclasses.fields(value):
            item = getattr(value, one.name)
            if "rest" in one.metadata:
                out |= _plain(item, sparse)
            elif not (sparse and "sparse" in one.metadata and item == _default(one)):
                out[one.name] = _plain(item, sparse)
        return out
    if isinstance(value, Mapping):
        return {key: _plain(item, sparse) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, sparse) for item in value]
    return value


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@cache
def _fields(kind: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Name, type and whether it must be there, of each field that has a name in JSON."""
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return tuple(
        (one.name, hints[one.name], one.default is missing and one.default_factory is missing)
        for one in dataclasses.fields(kind)
        if "rest" not in one.metadata
    )


@cache
def _rest(kind: Any) -> str | None:
    """The field for everything else."""
    return next((one.name for one in dataclasses.fields(kind) if "rest" in one.metadata), None)


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
    rest = _rest(kind)
    if rest is not None:
        given[rest] = {name: item for name, item in value.items() if name not in given}
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
