"""The public names of the package."""

from __future__ import annotations

import importlib
import pkgutil

import tsmerge_export as tsm


def test_no_submodule_hides_a_public_name() -> None:
    """Importing ``tsmerge_export.x`` sets the attribute ``x`` of the package: no function may have that name."""
    for module in pkgutil.iter_modules(tsm.__path__):
        importlib.import_module(f"tsmerge_export.{module.name}")
    for name in set(tsm.__all__) - {"merge"}:
        assert callable(getattr(tsm, name)), name
    assert tsm.merge.local_merge.__module__ == "tsmerge_export.merge.local"
