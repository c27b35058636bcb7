"""The native operators of ONNX Runtime: their build, and random problems through them.

``python -m tests.plugins.native --plugin libtsmerge_ort.so --cases 2000`` compares them with the reference; it ends
with exit code 1 and the case to reproduce at the first difference.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from tests.cases import Case, SeriesCase, random_case
from tests.ops.harness import difference, run_case
from tests.plugins.emulated import ROOT
from tests.plugins.fuzz import NearZero, OwnLengths
from tests.problems import CASES
from tsmerge_export.backends.onnxruntime.native import CPU_LIBRARY, CUDA_LIBRARY, Library

SOURCES = ROOT / "onnxruntime"
CUDA_SOURCES = ROOT / "onnxruntime_cuda"
#: The libraries by their file.
LIBRARIES = {library.file: library for library in (CPU_LIBRARY, CUDA_LIBRARY)}

#: Settings of LocalMerge; r is left out.
PLAIN = {
    "k": 1,
    "r": 0,
    "ratio_num": 0,
    "ratio_den": 1,
    "min_tokens": 0,
    "protect_first": 0,
    "protect_last": 0,
}


def methods(library: Library) -> tuple[str, ...]:
    """Those whose operators a library has, by their names in ``CASES``."""
    return tuple(name for name, case in CASES.items() if case.op_type in library.operators)


def cmake() -> str | None:
    """CMake beside this Python, else that of the path."""
    return shutil.which(
        "cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )


def headers() -> Path | None:
    """Folder with the headers of ONNX Runtime: ``ONNXRUNTIME_ROOT``, those of the system, or those brought before."""
    given = os.environ.get("ONNXRUNTIME_ROOT")
    roots = [given] if given else ["/usr", "/usr/local", str(ROOT.parent / "build" / "onnxruntime")]
    folders = [Path(root, *below) for root in roots for below in (["include"], ["include", "onnxruntime"])]
    return next((folder for folder in folders if (folder / "onnxruntime_cxx_api.h").is_file()), None)


def build(
    folder: Path, include: Path, flags: str = "-Werror", sources: Path = SOURCES, *options: str
) -> Path:
    """The CMake build of ``sources`` in ``folder``; raises CalledProcessError."""
    tool = cmake()
    assert tool is not None
    configure = [tool, "-S", str(sources), "-B", str(folder), f"-DONNXRUNTIME_ROOT={include}", *options]
    for command in ([*configure, f"-DCMAKE_CXX_FLAGS={flags}"], [tool, "--build", str(folder)]):
        subprocess.run(command, check=True, capture_output=True, text=True)
    return next(folder.glob("libtsmerge_*.so"))


def build_emulated(folder: Path, include: Path, flags: str = "-Werror", sources: Path = CUDA_SOURCES) -> Path:
    """The operators for the CUDA provider, made for the CPU's, kernels emulated; raises CalledProcessError."""
    return build(folder, include, flags, sources, "-DTSMERGE_EMULATED=ON")


def draw(seed: int, of: type[Case]) -> Case:
    """A problem: features beyond a vector register, rows beyond a block, more rows than are merged one by one."""
    chosen = NearZero if of is Case and seed % 25 == 0 else of
    chosen = OwnLengths if of is SeriesCase and seed % 3 == 0 else chosen
    tokens = 1200 if seed % 40 == 7 else 130  # beyond the threads of a block that counts
    return random_case(np.random.default_rng(seed), of=chosen, tokens=tokens, features=80, batch=12)


def check(seed: int, of: type[Case], plugin: Path) -> str | None:
    """What differs from the reference, ``"flip"`` where float noise decides; every second seed with two threads."""
    return difference(draw(seed, of), run_case(draw(seed, of), plugin, threads=1 + seed % 2))


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.plugins.native", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--plugin", type=Path, required=True, help="the library, for the CPU provider")
    parser.add_argument("--cases", type=int, default=2000, help="per method (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    parser.add_argument("--method", nargs="+", choices=CASES, help="these alone (default: all that it has)")
    options = parser.parse_args(arguments)
    of_library = methods(LIBRARIES[options.plugin.name])
    torch.set_num_threads(1)
    flips = 0
    for method in options.method or of_library:
        for seed in track(range(options.seed, options.seed + options.cases), method, transient=True):
            problem = check(seed, CASES[method], options.plugin)
            flips += problem == "flip"
            if problem not in (None, "flip"):
                print(f"{method}, seed {seed}: {draw(seed, CASES[method])}\n{problem}")
                return 1
    print(f"{options.cases} cases per method equal; decisions within float noise: {flips}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
