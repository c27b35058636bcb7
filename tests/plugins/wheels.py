"""The wheels of native operators: built once for all workers of a run, and installed into a folder of their own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.exports import FOLDER
from tests.plugins.emulated import ROOT

PROJECTS = ROOT / "wheels"
#: The distributions, by their folders.
NAMES = ("tsmerge-ort", "tsmerge-ort-cuda")
#: What the library of each shows: ONNX Runtime's entry, and those that tsmerge_export/merge/kernels.py calls.
ENTRIES = {
    NAMES[0]: ["RegisterCustomOps"],
    NAMES[1]: ["RegisterCustomOps", "tsmerge_local_merge", "tsmerge_local_merge_workspace", "tsmerge_on_gpu"],
}
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")


@dataclass(frozen=True)
class Installed:
    """A wheel, and the folder that pip put it into, which is on no path."""

    wheel: Path
    site: Path

    @property
    def operators(self) -> Path:
        """Its library."""
        (found,) = self.site.glob("*/lib/*")
        return found


def _run(command: Sequence[str | Path], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def build_sdist(name: str, folder: Path) -> Path:
    """The sdist of a project of the source tree."""
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    _run([sys.executable, "-c", code, folder], cwd=PROJECTS / name)
    (found,) = folder.glob("*.tar.gz")
    return found


def build(
    source: Path, folder: Path, defines: Mapping[str, object], environment: Mapping[str, str] | None = None
) -> Path:
    """The wheel of a project's folder or sdist, as ``pip wheel`` makes it, without network.

    Args:
        defines: CMake's variables. environment: beside that of this process.
    """
    given = [f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()]
    offline = ("wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir")
    # CMake and ninja of this Python come before those of the system.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    everything = {**os.environ, "PATH": path, **(environment or {})}
    _run([*_PIP, *offline, folder, *given, source], env=everything)
    (found,) = folder.glob("*.whl")
    return found


def install(wheel: Path, site: Path) -> Installed:
    """Into a folder that is not there yet."""
    _run([*_PIP, "install", "--no-index", "--no-deps", "--target", site, wheel])
    return Installed(wheel, site)


def once(
    key: str,
    source: str,
    defines: Mapping[str, object],
    environment: Mapping[str, str] | None = None,
    *,
    from_sdist: bool = False,
) -> Installed:
    """A wheel of the source tree, built and installed by the first worker of a run that asks for it.

    Args:
        key: of this build among all. source: the project's name. from_sdist: through its sdist.
    """
    folder = Path(os.environ[FOLDER], f"wheel-{key}")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "site").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            project = build_sdist(source, folder / "sdist") if from_sdist else PROJECTS / source
            made = install(build(project, folder / "wheel", defines, environment), folder / "part")
            made.site.rename(folder / "site")
    (wheel,) = (folder / "wheel").glob("*.whl")
    return Installed(wheel, folder / "site")
