"""Version of this package and of the tools around it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed

_TOOLS = (
    "torch",
    "transformers",
    "chronos-forecasting",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnx-graphsurgeon",
    "onnxruntime",
    "numpy",
)
_RUNTIME_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


def version() -> str:
    """The version of tsmerge-export, or ``unknown`` when it runs from a source tree that is not installed."""
    return _find("tsmerge-export") or "unknown"


def versions() -> dict[str, str]:
    """Versions of this package, Python and the tools that a bundle depends on; what is not installed is left out."""
    found = {"tsmerge-export": version(), "python": platform.python_version()}
    for name in _TOOLS:
        names = _RUNTIME_BUILDS if name == "onnxruntime" else (name,)
        value = next((v for v in map(_find, names) if v), None)
        if value:
            found[name] = value
    return found


def _find(name: str) -> str | None:
    try:
        return _installed(name)
    except PackageNotFoundError:
        return None
