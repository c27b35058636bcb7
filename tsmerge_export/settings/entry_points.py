"""Plug-ins of other packages: entry points of a group, found without importing anything, and errors of one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tsmerge_export.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

KindT = TypeVar("KindT")


@cache
def found(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Entry points of a group by name; more than one where packages claim the same name. Nothing is imported."""
    from importlib.metadata import (
        entry_points,  # takes a tenth of a second: only where a plug-in may be meant
    )

    out: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, package(entry))):
        # The same installation can be listed twice, by two folders of the search path.
        if all(
            (entry.value, package(entry)) != (other.value, package(other))
            for other in out.get(entry.name, ())
        ):
            out[entry.name] = (*out.get(entry.name, ()), entry)
    return out


def package(entry: EntryPoint) -> str:
    """The distribution that an entry point belongs to."""
    return "an unnamed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def distribution(group: str, name: str) -> dict[str, str]:
    """Name and version of the package that a plug-in comes from; empty for our own."""
    entry = next(iter(found(group).get(name, ())), None)
    return {} if entry is None or entry.dist is None else {entry.dist.name: entry.dist.version}


def imported(group: str, word: str, name: str) -> tuple[Any, EntryPoint, str]:
    """What an entry point names, the entry point, and the plug-in in words; see :func:`load` for what is raised."""
    first, *others = found(group)[name]
    label = f"{word} plug-in {name!r} of {package(first)}"
    if others:
        raise UsageError(f"{label}: {package(others[0])} claims the same name; uninstall one of them")
    with _foreign(label, first):
        return first.load(), first, label


@contextmanager
def _foreign(label: str, entry: EntryPoint) -> Iterator[None]:
    """Whatever foreign code raises inside the block, the user gets one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{label}: {error.name} is not installed") from error
    except Exception as error:
        raise UsageError(
            f"{label} cannot be loaded: {one_line(error)}; mend {entry.value}, or uninstall it"
        ) from error


def load(group: str, word: str, name: str, kind: type[KindT]) -> tuple[KindT, str]:
    """Import what an entry point names, and call it where it is a class.

    Args:
        word: what it is, in messages: ``family``. kind: its class; ``.name`` must be that of the entry point.

    Returns:
        The object, and the plug-in in words.

    Raises:
        UsageError: two packages claim the name, the object cannot be made, is of another class or calls itself
            otherwise.
        MissingDependencyError: a module that it imports is not installed.
    """
    loaded, first, label = imported(group, word, name)
    with _foreign(label, first):
        made = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(made, kind):
        raise UsageError(f"{label}: {first.value} is no {kind.__module__}.{kind.__qualname__}")
    own = getattr(made, "name", None)
    if own != name:
        raise UsageError(f"{label}: {first.value} calls itself {own!r}; the names must agree")
    return made, label


def one_line(error: BaseException) -> str:
    """An error of foreign code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
