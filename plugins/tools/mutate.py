"""Breaks the kernels on purpose and shows that the emulated tests notice: ``python plugins/tools/mutate.py``.

Every ``__syncthreads()`` is deleted in turn, and every rule of ranks, ties and padding is turned around. A mutant that
survives is a hole in the tests (or a line that is not needed) and gives exit code 1. Run it from the repository's root.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.plugins.emulated import HEADERS, KERNELS, build

BARRIER = "__syncthreads();"

#: (name, file, text, instead of it)
RULES = (
    (
        "ties of b: highest j wins",
        "kernels.cuh",
        "(0xffffffffU - static_cast<unsigned>(j))",
        "static_cast<unsigned>(j)",
    ),
    ("ties of a: none is taken", "select.cuh", "(tied && tiedHere < room)", "false"),
    ("ties of a: all are taken", "select.cuh", "(tied && tiedHere < room)", "tied"),
    ("ties of a: highest i wins", "select.cuh", "tied && tiedHere < room", "tied && tiedHere >= room"),
    ("-0 is below +0", "kernels.cuh", "rintf(cosine * kSteps) + 0.0F", "rintf(cosine * kSteps)"),
    ("cosines are not rounded", "kernels.cuh", "rintf(cosine * kSteps)", "(cosine * kSteps)"),
    ("NaN is not ranked", "kernels.cuh", "isnan(steps) ? kRankNan : steps", "steps"),
    ("a zero vector is no zero", "kernels.cuh", "scale == 0.0F ? 0.0F : dot / scale", "dot / scale"),
    ("padding does not go first", "select.cuh", "key = orderedKey(kRankPadding);", ""),
    ("near: real a into padding", "match.cuh", "if (realA && size[tokenB] == 0.0F)", "if (false)"),
    ("tiles: real a into padding", "match.cuh", "if (paddingB && ", "if (false && "),
    (
        "near: window too wide",
        "match.cuh",
        "i + layout.k < layout.countB ? i + layout.k",
        "i + layout.k < layout.countB ? i + layout.k + 1",
    ),
    ("tiles: window too wide", "match.cuh", "distance >= layout.k", "distance > layout.k"),
    ("tiles: only the first split", "select.cuh", "s < splits", "s < 1"),
    ("padding has weight", "combine.cuh", "inside && size[token] > 0.0F", "inside"),
    ("padding b has weight", "combine.cuh", "if (own > 0.0F)", "if (true)"),
    (
        "unmerged tokens are computed",
        "combine.cuh",
        "bool const received = total > own;",
        "bool const received = true;",
    ),
    ("middle members are lost", "combine.cuh", "visit(base + __ffs(static_cast<int>(hits)) - 1);", ""),
    ("last member is lost", "combine.cuh", "if (slot.last > slot.first)", "if (false)"),
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    name: str
    file: str
    text: str


def mutants() -> list[Mutant]:
    """Every barrier deleted, every rule turned around. Raises ValueError for a rule whose text is gone."""
    found = []
    for file in HEADERS:
        source = (KERNELS / file).read_text()
        parts = source.split(BARRIER)
        for number in range(1, len(parts)):
            why = parts[number].split("\n")[0].strip(" /")
            text = BARRIER.join(parts[:number]) + BARRIER.join(parts[number:])
            found.append(Mutant(f"barrier {number} of {file} deleted ({why})", file, text))
    for name, file, text, instead in RULES:
        source = (KERNELS / file).read_text()
        if source.count(text) != 1:
            raise ValueError(f"{name}: {text!r} is {source.count(text)} times in {file}")
        found.append(Mutant(name, file, source.replace(text, instead)))
    return found


def survives(mutant: Mutant, cases: int) -> bool:
    """Whether all cases still pass with the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        for file in (*HEADERS, "local_merge.cu"):
            shutil.copy(KERNELS / file, folder)
        Path(folder, mutant.file).write_text(mutant.text)
        flags = ("-O1", "-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-but-set-variable")
        program = build(Path(folder, "emulated"), sources=Path(folder), flags=flags)
        command = [
            sys.executable,
            "-m",
            "tests.plugins.fuzz",
            "--cases",
            str(cases),
            "--program",
            str(program),
        ]
        return subprocess.run(command, capture_output=True, timeout=600).returncode == 0


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
    for mutant in chosen:
        alive = survives(mutant, options.cases)
        left += alive
        print(f"{'SURVIVED' if alive else 'found   '} {mutant.name}", flush=True)
    print(f"{len(chosen)} mutants, {left} survived")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
