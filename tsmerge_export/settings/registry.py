"""The merging methods by name: those of this package, and those of other packages.

A method of another package is an entry point of the group ``tsmerge_export.methods``, named after the method; in the
pyproject.toml of such a package::

    [project.entry-points."tsmerge_export.methods"]
    my-method = "my_package:METHOD"

The object is a :class:`~tsmerge_export.settings.method.MethodSpec`. A plug-in that cannot be loaded is one line,
where it is asked for, and in nobody else's way. Entry points are looked for only where a built-in method does not do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any

from tsmerge_export.errors import MissingDependencyError, TsmergeError, UsageError
from tsmerge_export.settings import entry_points
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import GENERAL, Option

GROUP = "tsmerge_export.methods"

# In this order in lists. A name that is a keyword of Python has a folder with an underscore behind it.
_FOLDERS = {
    "local": "tsmerge_export.methods.local",
    "global": "tsmerge_export.methods.global_",
    "dynamic": "tsmerge_export.methods.dynamic",
    "pitome": "tsmerge_export.methods.pitome",
    "ssm": "tsmerge_export.methods.ssm",
}

#: The method where nobody says which.
DEFAULT = "local"
#: The method that merges nothing.
NONE = "none"


def built_in() -> tuple[str, ...]:
    """The names of this package's methods."""
    return tuple(_FOLDERS)


def names() -> tuple[str, ...]:
    """The names of all methods, the built-in ones first."""
    plugged = (name for name in entry_points.found(GROUP) if name not in (*_FOLDERS, NONE))
    return (*_FOLDERS, *plugged)


@cache
def spec(name: str) -> MethodSpec:
    """What a method says about itself. A built-in method cannot be replaced by a plug-in.

    Raises:
        UsageError: no method of that name, or a plug-in that is broken.
        MissingDependencyError: what a plug-in imports is not installed.
    """
    if name in _FOLDERS:
        found: MethodSpec = import_module(_FOLDERS[name]).METHOD
        return found
    if name == NONE or name not in entry_points.found(GROUP):
        known = ", ".join((NONE, *names()))
        raise UsageError(f"--merge {name} is not a known method; choose one of: {known}")
    return _plug_in(name)


def specs() -> tuple[MethodSpec, ...]:
    """All methods that can be loaded, the built-in ones first."""
    out = []
    for name in names():
        try:
            out.append(spec(name))
        except TsmergeError:
            if name in _FOLDERS:
                raise
    return tuple(out)


def options(of: Iterable[MethodSpec]) -> tuple[Option, ...]:
    """The options of some methods, each once."""
    return tuple({option.name: option for one in of for option in one.options}.values())


@cache
def built_in_options() -> tuple[Option, ...]:
    """The options of this package's methods."""
    return options(map(spec, _FOLDERS))


def able(holds: Callable[[MethodSpec], bool]) -> str:
    """This package's methods of which something holds, in words: ``local or global``."""
    return " or ".join(name for name in _FOLDERS if holds(spec(name)))


def takers(option: Option, of: Iterable[MethodSpec]) -> tuple[str, ...]:
    """The names of the methods, of some, that have an option."""
    return tuple(one.name for one in of if option.name in {own.name for own in one.options})


def load(one: MethodSpec, reference: str) -> Any:
    """Import what a description names: ``module``, or ``module:attribute``. Raises as :func:`spec`."""
    module, _, attribute = reference.partition(":")
    if one.name in _FOLDERS:
        made = import_module(module)
        return getattr(made, attribute) if attribute else made
    label = f"method plug-in {one.name!r}"
    try:
        made = import_module(module)
        return getattr(made, attribute) if attribute else made
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{label}: {error.name} is not installed") from error
    except Exception as error:  # foreign code: whatever it raises, the user gets one line
        why = entry_points.one_line(error)
        raise UsageError(f"{label} cannot be loaded: {why}; mend {reference}, or uninstall it") from error


def forget() -> None:
    """Look for plug-ins anew: where packages were installed or removed while this process runs."""
    entry_points.found.cache_clear()
    spec.cache_clear()


def _plug_in(name: str) -> MethodSpec:
    found, label = entry_points.load(GROUP, "method", name, MethodSpec)
    built = [one for own in _FOLDERS for one in (spec(own), *spec(own).variants.values())]
    ours = {one.op_type: one.operator for one in built}
    if found.op_type in ours and found.operator != ours[found.op_type]:
        raise UsageError(f"{label}: {found.op_type} is an operator of this package; give it another op_type")
    for option in found.options:
        if option.name in (*GENERAL, "method", "options"):
            raise UsageError(
                f"{label}: {option.flag} is a setting of all methods; give the option another name"
            )
        if any(option.name == own.name and option != own for own in built_in_options()):
            raise UsageError(
                f"{label}: {option.flag} is an option of this package's methods; take it from "
                "tsmerge_export.methods.options, or give the option another name"
            )
    return found
