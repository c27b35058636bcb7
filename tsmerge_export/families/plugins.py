"""Families of other packages: an entry point of the group ``tsmerge_export.families``, named after the family.

In the pyproject.toml of such a package::

    [project.entry-points."tsmerge_export.families"]
    my-family = "my_package.family:MyFamily"

The object is a subclass of :class:`~tsmerge_export.families.base.Family`. A plug-in that cannot be loaded is one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tsmerge_export.settings import entry_points
from tsmerge_export.settings.entry_points import one_line, package

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from tsmerge_export.families.base import Family

__all__ = ["GROUP", "distribution", "found", "load", "matches", "package"]

GROUP = "tsmerge_export.families"


def found() -> Mapping[str, tuple[EntryPoint, ...]]:
    """See :func:`~tsmerge_export.settings.entry_points.found`."""
    return entry_points.found(GROUP)


def distribution(name: str) -> dict[str, str]:
    """See :func:`~tsmerge_export.settings.entry_points.distribution`."""
    return entry_points.distribution(GROUP, name)


def load(name: str) -> Family:
    """Import and make the family of an entry point.

    Raises:
        UsageError: two packages claim the name, or the object is no family or cannot be made.
        MissingDependencyError: a module that it imports is not installed.
    """
    from tsmerge_export.families.base import Family

    return entry_points.load(GROUP, "family", name, Family)[0]  # type: ignore[type-abstract]


def matches(family: Family, config: Mapping[str, Any], broken: list[str]) -> bool:
    """``family.matches``; what it raises goes to ``broken`` as one line."""
    try:
        return bool(family.matches(config))
    except Exception as error:  # foreign code
        broken.append(f"family plug-in {family.name!r} cannot read this config: {one_line(error)}")
        return False
