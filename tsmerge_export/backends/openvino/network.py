"""Files in OpenVINO: the one place where it is imported."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UnsupportedError

#: Where and how it runs: a CPU that has bfloat16 would compute in it, other numbers than those that are proved.
DEVICE, PRECISION = "CPU", {"INFERENCE_PRECISION_HINT": "f32"}

# What only says where in OpenVINO's own sources an error was found.
_FRAME = re.compile(
    r"Exception from |Check '|While validating |FrontEnd API failed|Model wasn't|Summary:|-- Conversion is failed"
)


def installed() -> Any:
    """The package. Raises MissingDependencyError."""
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise MissingDependencyError(how_to_install("openvino")) from None


def version() -> str:
    """Of the package: ``2026.4.1``. Raises MissingDependencyError."""
    return str(installed().__version__).partition("-")[0]


def compile_file(file: Path, threads: int | None = None) -> Any:
    """A file as OpenVINO's ``CompiledModel``, on the CPU in float32.

    Args:
        file: .onnx, without functions. threads: of inference; None is OpenVINO's choice.

    Raises:
        MissingDependencyError: OpenVINO is not installed. UnsupportedError: it cannot load the file; its reason is in
            the message.
    """
    openvino = installed()
    settings = PRECISION if threads is None else PRECISION | {"INFERENCE_NUM_THREADS": threads}
    try:
        return openvino.Core().compile_model(str(file), DEVICE, settings)
    except Exception as error:  # RuntimeError, and for the frontends' own errors others
        raise UnsupportedError(
            f"{file.name}: OpenVINO {version()} cannot load it: {reason(error)}"
        ) from error


def reason(error: Exception) -> str:
    """What went wrong, in one line of OpenVINO's many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not _FRAME.match(line)] or lines
    return " ".join(telling)[:300] or type(error).__name__
