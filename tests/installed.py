"""Packages as pip leaves them: what is found of them are entry points."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def install(folder: Path, group: str, name: str, entry_points: str) -> None:
    """What pip leaves in site-packages for a package with these lines in a group of entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry_points}\n")


def install_example(folder: Path, group: str, name: str) -> None:
    """A package of this folder, with the entry points of its pyproject.toml, the first of which are of that group."""
    text = (TESTS / name / "pyproject.toml").read_text()
    lines = text.split(f'[project.entry-points."{group}"]\n')[1].replace('"', "")
    install(folder, group, name, lines.replace("[project.entry-points.", "["))
    (folder / name).symlink_to(TESTS / name / name)


def forget_modules(example: str) -> None:
    """As if neither the example nor the broken packages of a test had ever been imported."""
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.startswith((example, "broken_"))]:
        del sys.modules[name]
