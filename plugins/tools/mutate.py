"""Breaks the plugins on purpose and shows that their tests notice: ``python plugins/tools/mutate.py``.

Every ``__syncthreads()`` of the CUDA kernels is deleted in turn, and every rule of ranks, ties and padding is turned
around, there and in the native operators of ONNX Runtime. A mutant that survives is a hole in the tests (or a line that
is not needed) and gives exit code 1. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from copy_rules import COPY_RULES, COPYING_RULES
from linked_rules import PITOME_RULES, SSM_RULES
from rules import (
    APART_RULES,
    BARRIER,
    COUNT_RULES,
    CUDA_RULES,
    KERNEL_RULES,
    NATIVE_RULES,
    SERIES_RULES,
)

from tests.plugins import native
from tests.plugins.emulated import ROOT, build


@dataclass(frozen=True)
class Subject:
    """What is broken: its folder in ``plugins``, and the command that searches a build of a copy of ``plugins``."""

    name: str
    folder: str
    search: Callable[[Path, int], list[str]]


def _kernels(plugins: Path, cases: int) -> list[str]:
    flags = ("-O1", "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-but-set-variable")
    program = build(plugins / "emulated", sources=plugins / "local_merge", flags=flags)
    return ["-m", "tests.plugins.fuzz", "--cases", str(cases), "--program", str(program)]


def _headers() -> Path:
    include = native.headers()
    if include is None:
        raise FileNotFoundError("headers of ONNX Runtime; see plugins/tools/onnxruntime_headers.py")
    return include


def _library(plugins: Path, folder: str, *options: str) -> str:
    fast = (*options, "-DCMAKE_BUILD_TYPE=None")  # a mutant is compiled more often than it runs
    return str(native.build(plugins / f"build-{folder}", _headers(), "-O1", plugins / folder, *fast))


def _of_methods(library: str, cases: int, *methods: str) -> list[str]:
    return ["-m", "tests.plugins.native", "--plugin", library, "--cases", str(cases), "--method", *methods]


def _operators(plugins: Path, cases: int) -> list[str]:
    methods = ("local", "local-options", "dynamic", "dynamic-options")
    return _of_methods(_library(plugins, native.SOURCES.name), cases, *methods)


def _series(plugins: Path, cases: int) -> list[str]:
    return _of_methods(_library(plugins, native.SOURCES.name), cases, "series")


def _emulated(plugins: Path) -> str:
    return _library(plugins, native.CUDA_SOURCES.name, "-DTSMERGE_EMULATED=ON")


def _counted(plugins: Path, cases: int) -> list[str]:
    return _of_methods(_emulated(plugins), cases // 2, "dynamic", "dynamic-options")


def _apart(plugins: Path, cases: int) -> list[str]:
    return _of_methods(_emulated(plugins), cases, "series")


def _pitome(plugins: Path, cases: int) -> list[str]:
    return _of_methods(_emulated(plugins), cases, "pitome")


def _ssm(plugins: Path, cases: int) -> list[str]:
    return _of_methods(_emulated(plugins), cases, "ssm", "ssm-branches")


def _copies(plugins: Path, cases: int) -> list[str]:
    return ["-m", "tests.plugins.copies", "--plugin", _emulated(plugins), "--cases", str(cases)]


KERNEL_SUBJECT = Subject("kernels", "local_merge", _kernels)
OPERATOR_SUBJECT = Subject("native", native.SOURCES.name, _operators)
SERIES_SUBJECT = Subject("series", native.SOURCES.name, _series)
COUNT_SUBJECT = Subject("counted", "local_merge", _counted)
CUDA_SUBJECT = Subject("cuda", native.CUDA_SOURCES.name, _counted)
APART_SUBJECT = Subject("apart", "local_merge", _apart)
COPY_SUBJECT = Subject("copies", "local_merge", _copies)
COPYING_SUBJECT = Subject("copying", native.CUDA_SOURCES.name, _copies)
PITOME_SUBJECT = Subject("pitome", "local_merge", _pitome)
SSM_SUBJECT = Subject("ssm", "local_merge", _ssm)

#: Whose barriers are deleted.
BARRIERS = (
    *((KERNEL_SUBJECT, file) for file in ("match.cuh", "tiles.cuh", "select.cuh", "combine.cuh")),
    (PITOME_SUBJECT, "links.cuh"),
    (PITOME_SUBJECT, "pitome.cuh"),
    (SSM_SUBJECT, "ssm.cuh"),
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    name: str
    subject: Subject
    file: str
    text: str


def mutants() -> list[Mutant]:
    """Every barrier deleted, every rule turned around. Raises ValueError for a rule whose text is gone."""
    found = []
    for subject, file in BARRIERS:
        source = (ROOT / subject.folder / file).read_text()
        parts = source.split(BARRIER)
        for number in range(1, len(parts)):
            why = parts[number].split("\n")[0].strip(" /")
            text = BARRIER.join(parts[:number]) + BARRIER.join(parts[number:])
            found.append(Mutant(f"barrier {number} of {file} deleted ({why})", subject, file, text))
    for subject, rules in (
        (KERNEL_SUBJECT, KERNEL_RULES), (OPERATOR_SUBJECT, NATIVE_RULES), (SERIES_SUBJECT, SERIES_RULES),
        (COUNT_SUBJECT, COUNT_RULES), (CUDA_SUBJECT, CUDA_RULES), (APART_SUBJECT, APART_RULES),
        (COPY_SUBJECT, COPY_RULES), (COPYING_SUBJECT, COPYING_RULES),
        (PITOME_SUBJECT, PITOME_RULES), (SSM_SUBJECT, SSM_RULES),
    ):  # fmt: skip
        for name, file, text, instead in rules:
            source = (ROOT / subject.folder / file).read_text()
            if source.count(text) != 1:
                raise ValueError(f"{name}: {text!r} is {source.count(text)} times in {file}")
            found.append(Mutant(f"{subject.name}: {name}", subject, file, source.replace(text, instead)))
    return found


def survives(mutant: Mutant, cases: int, plugins: Path) -> bool:
    """Whether all cases still pass with the mutant in ``plugins``, a copy that is as it was afterwards; what does not
    follow from the broken file is built once."""
    file = plugins / mutant.subject.folder / mutant.file
    before = file.read_text()
    file.write_text(mutant.text)
    try:
        command = [sys.executable, *mutant.subject.search(plugins, cases)]
        return subprocess.run(command, capture_output=True, timeout=600).returncode == 0
    except subprocess.TimeoutExpired:  # it runs in circles
        return False
    finally:
        file.write_text(before)


def main(arguments: list[str] | None = None) -> int:
    """Try the mutants; returns 1 if one survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", type=int, default=500, help="cases that a mutant must survive (default: 500)"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="mutants whose name holds this")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in mutants() if options.only in mutant.name]
    if options.list or not chosen:
        print("\n".join(mutant.name for mutant in chosen) or "no mutant has such a name")
        return 0 if chosen else 2
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        plugins = Path(shutil.copytree(ROOT, Path(folder, "plugins")))
        for mutant in chosen:
            alive = survives(mutant, options.cases, plugins)
            left += alive
            print(f"{'SURVIVED' if alive else 'found   '} {mutant.name}", flush=True)
    print(f"{len(chosen)} mutants, {left} survived")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
