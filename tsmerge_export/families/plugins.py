"""Families of other packages: an entry point of the group ``tsmerge_export.families``, named after the family.

In the pyproject.toml of such a package::

    [project.entry-points."tsmerge_export.families"]
    my-family = "my_package.family:MyFamily"

The object is a subclass of :class:`~tsmerge_export.families.base.Family`. A plug-in that cannot be loaded is one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from tsmerge_export.families.base import Family

GROUP = "tsmerge_export.families"


@cache
def found() -> Mapping[str, tuple[EntryPoint, ...]]:
    """Entry points by name; more than one where packages claim the same name. Nothing is imported."""
    out: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, package(entry))):
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


def distribution(name: str) -> dict[str, str]:
    """Name and version of the package that a family comes from; empty for our own."""
    entry = next(iter(found().get(name, ())), None)
    return {} if entry is None or entry.dist is None else {entry.dist.name: entry.dist.version}


def load(name: str) -> Family:
    """Import and make the family of an entry point.

    Raises:
        UsageError: two packages claim the name, or the object is no family or cannot be made.
        MissingDependencyError: a module that it imports is not installed.
    """
    from tsmerge_export.families.base import Family

    first, *others = found()[name]
    label = f"family plug-in {name!r} of {package(first)}"
    if others:
        raise UsageError(f"{label}: {package(others[0])} claims the same name; uninstall one of them")
    try:
        loaded = first.load()
        family = loaded() if isinstance(loaded, type) else loaded
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{label}: {error.name} is not installed") from error
    except Exception as error:  # foreign code: whatever it raises, the user gets one line
        raise UsageError(
            f"{label} cannot be loaded: {_one_line(error)}; mend {first.value}, or uninstall it"
        ) from error
    if not isinstance(family, Family):
        raise UsageError(f"{label}: {first.value} is no subclass of tsmerge_export.families.base.Family")
    if getattr(family, "name", None) != name:
        raise UsageError(
            f"{label}: {first.value} calls itself {getattr(family, 'name', None)!r}; the names must agree"
        )
    return family


def matches(family: Family, config: Mapping[str, Any], broken: list[str]) -> bool:
    """``family.matches``; what it raises goes to ``broken`` as one line."""
    try:
        return bool(family.matches(config))
    except Exception as error:  # foreign code
        broken.append(f"family plug-in {family.name!r} cannot read this config: {_one_line(error)}")
        return False


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(": ")
