"""TensorRT-RTX: real engines, built ahead of time on any machine, no GPU needed. Running one needs a GPU.

The builder runs in a process of its own: it can be interrupted, and an abort inside it is an error here.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tsmerge_export.backends.engines.profile import Profile
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError

#: Compute capabilities that an engine can be built for ahead of time.
CAPABILITIES = ("75", "80", "86", "89", "120", "121")
DEFAULT_CAPABILITIES = ("80", "86", "89", "120")
_PLANNED = {
    "activation_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weights_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}


@dataclass(frozen=True)
class Engine:
    """What the compiler says about an engine: its own plan, not a measurement.

    Attributes:
        activation_bytes: memory for intermediate values at the largest shapes. weights_bytes: weights on the GPU.
        engine_bytes: size of the file. seconds: of the build. version: of TensorRT-RTX.
    """

    activation_bytes: int
    weights_bytes: int
    engine_bytes: int
    seconds: float
    version: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def check_installed() -> None:
    """Raise MissingDependencyError unless TensorRT-RTX is there."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise MissingDependencyError(how_to_install("tensorrt_rtx"))


def check_capabilities(names: Sequence[str]) -> None:
    """Raise UsageError for one that TensorRT-RTX cannot build for ahead of time."""
    for name in names:
        if name not in CAPABILITIES:
            raise UsageError(
                f"--compute-capability {','.join(names)}: {name!r} is none that TensorRT-RTX builds for; "
                f"choose among {', '.join(CAPABILITIES)}"
            )


def build_engine(
    model: Path, engine: Path, profile: Profile, capabilities: Sequence[str] = DEFAULT_CAPABILITIES
) -> Engine:
    """Compile an ONNX file of standard operators.

    Args:
        model: without plugins and functions, see :func:`tsmerge_export.backends.engines.lower.standard_form`.
        engine: file to write. profile: range of input shapes. capabilities: of GPUs, see :data:`CAPABILITIES`.

    Returns:
        The compiler's account.

    Raises:
        MissingDependencyError: TensorRT-RTX is not installed.
        UnsupportedError: it cannot build the model; its own first error is in the message.
    """
    check_installed()
    spec = {
        "model": str(model),
        "engine": str(engine),
        "shapes": {name: [list(shape) for shape in shapes] for name, shapes in profile.shapes.items()},
        "capabilities": list(capabilities),
    }
    command = [sys.executable, "-m", "tsmerge_export.backends.tensorrt_rtx.worker", json.dumps(spec)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    lines = done.stdout.splitlines()
    result = next((line.removeprefix("result ") for line in lines if line.startswith("result ")), None)
    if done.returncode != 0 or result is None or not engine.is_file():
        # The first error is the cause; lines before it in the parser's account only frame it.
        errors = [line.removeprefix("error ") for line in lines if line.startswith("error ")]
        reason = next(
            (line for line in errors if "Assertion" in line or "Error" in line), (errors or [""])[0]
        )
        raise UnsupportedError(
            f"{model.name}: TensorRT-RTX cannot build it: {reason[:400] or f'it ended with code {done.returncode}'}"
        )
    planned = {
        name: max((int(found) for found in pattern.findall(done.stdout)), default=0)
        for name, pattern in _PLANNED.items()
    }
    account = json.loads(result)
    return Engine(
        **planned, engine_bytes=engine.stat().st_size, seconds=account["seconds"], version=account["version"]
    )
