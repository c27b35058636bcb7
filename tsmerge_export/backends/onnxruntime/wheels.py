"""Wheels of native operators (``plugins/wheels``), where they are installed: each is a module that says where its
library is."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

#: By their names as distributions; the module of each has underscores.
CPU_WHEEL, CUDA_WHEEL = "tsmerge-ort", "tsmerge-ort-cuda"
#: The function of each that says where its library is.
_WHERE = "library_path"


@dataclass(frozen=True)
class Wheel:
    """An installed wheel: its name, its version, and its library's file."""

    name: str
    version: str
    file: Path

    @property
    def operators(self) -> int:
        """The version of the operators of domain ``tsmerge`` that it has."""
        return int(self.version.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def installed(name: str) -> Wheel | None:
    """The wheel of that name, if this Python has it; a module that is none, such as a folder of its name, is none."""
    try:
        module = importlib.import_module(name.replace("-", "_"))
        return Wheel(name, module.__version__, Path(getattr(module, _WHERE)()))
    except (ImportError, AttributeError):
        return None


def wheel_of(library: Path) -> Wheel | None:
    """The installed wheel that a library is of, if any."""
    found = (installed(name) for name in (CPU_WHEEL, CUDA_WHEEL))
    return next((wheel for wheel in found if wheel is not None and wheel.file == library), None)
