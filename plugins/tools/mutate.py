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

from tests.plugins import native
from tests.plugins.emulated import HEADERS, ROOT, build

BARRIER = "__syncthreads();"

#: (name, file, text, instead of it)
KERNEL_RULES = (
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
    (
        "padding does not go first",
        "select.cuh",
        "if (found != 0 && size[layout.first + 2 * static_cast<int64_t>(i)] == 0.0F)",
        "if (false)",
    ),
    ("near: real a into padding", "match.cuh", "size[tokenB] == 0.0F || padded", "padded"),
    ("tiles: real a into padding", "match.cuh", "if (paddingB && ", "if (false && "),
    (
        "near: window too wide",
        "match.cuh",
        "i + layout.k < free / 2 ? i + layout.k",
        "i + layout.k < free / 2 ? i + layout.k + 1",
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
    ("causal reads padding", "match.cuh", "layout.causal && size[tokenA - 1] == 0.0F", "false"),
    ("causal slots are read from after", "select.cuh", "place - (layout.causal ? 1 : 0)", "place"),
    ("endless norms count", "kernels.cuh", "if (!isfinite(squareA) || !isfinite(squareB))", "if (false)"),
    ("endless norms are the scale", "match.cuh", " && isfinite(square)", ""),
    ("l2 is dot", "kernels.cuh", "similarity == Similarity::kL2", "false"),
    (
        "only the first half is the scale",
        "match.cuh",
        "layout.first + index % free",
        "layout.first + index % free / 2",
    ),
)
#: Rules of DynamicMerge on the GPU.
COUNT_RULES = (
    # The scale changes the order of nothing, only what exceeds a threshold.
    ("padding is the scale", "match.cuh", "&& size[token] > 0.0F ", ""),
    ("at the threshold", "select.cuh", ">> 32) > least", ">> 32) >= least"),
    (
        "the first a's alone",
        "select.cuh",
        "base < countA; base += kCountThreads",
        "base < 1; base += 1",
    ),
    (
        "of the first row",
        "select.cuh",
        "    size += row * layout.tokens;\n    best += row * layout.countA * splits;\n    unsigned const count",
        "    unsigned const count",
    ),
)
CUDA_RULES = (
    (
        "no cap",
        "operators.cpp",
        'std::min(awaited(exceeding, stream, "DynamicMerge") / problem.batch, most)',
        'awaited(exceeding, stream, "DynamicMerge") / problem.batch',
    ),
    (
        "the sum of the rows",
        "operators.cpp",
        'awaited(exceeding, stream, "DynamicMerge") / problem.batch',
        'awaited(exceeding, stream, "DynamicMerge")',
    ),
)
#: Rules of SeriesMerge on the GPU.
APART_RULES = (
    ("counts of other warps are missed", "series.cuh", BARRIER, ""),
    ("padding at the end takes part", "series.cuh", "count < 0 ? 0 : count;", "layout.unprotected();"),
    (
        "padding ends at a warp's first lane",
        "series.cuh",
        "count -= __ffs(static_cast<int>(real)) - 1;",
        "",
    ),
    ("padding is a warp long at most", "series.cuh", "count -= static_cast<int>(kWarp);", "count = 0;"),
    ("the last warp counts alone", "series.cuh", "wanted += part;", "wanted = part;"),
    ("no cap", "series.cuh", "wanted < most ? wanted : most", "wanted"),
    ("min_tokens is forgotten", "series.cuh", "own > minTokens ? own - minTokens : 0", "own"),
    (
        "what was set aside counts",
        "series.cuh",
        "layout.tokens - layout.unprotected() + free",
        "layout.tokens",
    ),
    (
        "as short as the last row",
        "series.cuh",
        "atomicMax(longest, static_cast<int>(own - goes))",
        "*longest = static_cast<int>(own - goes)",
    ),
    ("near: set aside is a b", "match.cuh", "i + layout.k : free / 2;", "i + layout.k : layout.countB;"),
    ("tiles: set aside is a b", "match.cuh", "countB = free / 2;", "countB = layout.countB;"),
    ("a row that loses nothing loses all", "select.cuh", "removed == 0 ? 0xffffffffU : 0;", "0;"),
    ("the last of an odd number has a b", "select.cuh", "if (i < free / 2)", "if (i < layout.countB)"),
    ("set aside is lost", "select.cuh", "token < end && place >= behind)", "token < end)"),
    ("targets behind all slots", "select.cuh", "behind > 0 ? behind - 1 : 0", "place"),
    ("targets in front of all slots", "select.cuh", "behind > 0 ? behind - 1 : 0", "behind - 1"),
    ("protected tokens are not last", "select.cuh", "behind + token - end;", "token - removed;"),
    (
        "copies are of the last token",
        "select.cuh",
        "aside < end ? static_cast<Index>(end - 1) : kept[filled - 1]",
        "static_cast<Index>(end - 1)",
    ),
    (
        "copies of what is not written yet",
        "select.cuh",
        "aside < end ? static_cast<Index>(end - 1) : kept[filled - 1]",
        "kept[filled - 1]",
    ),
    ("copies have a size", "combine.cuh", "copied ? 0.0F : total", "total"),
    (
        "protected tokens are copies too",
        "combine.cuh",
        "place >= filled && place < layout.behind()",
        "place >= filled",
    ),
)
NATIVE_RULES = (
    ("ties of b: highest j wins", "match.cpp", "if (rank > row.rank[i])", "if (rank >= row.rank[i])"),
    (
        "ties of a: highest i wins",
        "place.cpp",
        "(0xffffffffU - static_cast<uint32_t>(index))",
        "index",
    ),
    (
        "-0 is below +0",
        "match.cpp",
        "return (value + kWhole) - kWhole;",
        "return std::copysign((value + kWhole) - kWhole, value);",
    ),
    ("the worst merge", "place.cpp", "std::greater<>()", "std::less<>()"),
    ("cosines are not rounded", "match.cpp", "rounded((scale", "((scale"),
    (
        "l2 and dot are not bounded",
        "match.cpp",
        "std::min(std::max(steps, -kSteps), kSteps)",
        "steps",
    ),
    (
        "endless norms count",
        "match.cpp",
        "!std::isfinite(squareA) || !std::isfinite(squareB)",
        "false",
    ),
    ("endless norms are the scale", "match.cpp", "&& std::isfinite(it.square[u])", ""),
    ("padding is the scale", "match.cpp", "it.size[u] > 0.0F && ", ""),
    ("NaN is not ranked", "match.cpp", "std::isnan(steps) ? kRankNan : steps", "steps"),
    ("a zero vector is no zero", "match.cpp", "scale == 0.0F ? 0.0F : dot / scale", "dot / scale"),
    ("padding does not go first", "match.cpp", "it.rank[i] = kRankPadding;", ";"),
    ("real a into padding", "match.cpp", "row.size[2 * j + 1] == 0.0F || ", "false || "),
    ("causal reads padding", "match.cpp", "(mSettings.causal && a[-1] == 0.0F)", "false"),
    ("window too wide", "match.cpp", "mSettings.k - 1;", "mSettings.k;"),
    (
        "window too narrow",
        "match.cpp",
        "std::min({behind + reach, from + block, beyond})",
        "std::min({behind + reach - 1, from + block, beyond})",
    ),
    (
        "blocks of b's are cut short",
        "match.cpp",
        "from < beyond; from += block",
        "from < block; from += block",
    ),
    ("causal slots are read from after", "place.cpp", "left - (goes && settings.causal)", "left"),
    ("padding has weight", "combine.h", "if (size[n] > 0.0F)", "if (true)"),
    (
        "padding b has weight",
        "combine.h",
        "        if (size[token] > 0.0F)\n        {\n            add",
        "        if (true)\n        {\n            add",
    ),
    ("one real token beside padding", "combine.h", "if (one && size[token] > 0.0F)", "if (one)"),
    ("unmerged tokens are computed", "combine.h", "changed = size[n] > 0.0F;", "changed = true;"),
    (
        "only the first member",
        "combine.h",
        "bool const one = next[head] < 0;",
        "bool const one = true;",
    ),
    (
        "the rest of the features is lost",
        "products.cpp",
        "for (int64_t d = whole; d < n; ++d)",
        "for (int64_t d = n; d < n; ++d)",
    ),
    ("dynamic: at the threshold", "amounts.h", "return rank > limit;", "return rank >= limit;"),
    ("dynamic: no cap", "amounts.h", "std::min(total / problem.batch, most)", "total / problem.batch"),
    (
        "dynamic: of the first row",
        "amounts.h",
        "row < problem.batch; ++row)\n        {\n            total",
        "row < 1; ++row)\n        {\n            total",
    ),
    ("the last range is lost", "run.cpp", "(length + kRange - 1) / kRange", "length / kRange"),
)
#: Rules of SeriesMerge on the CPU.
SERIES_RULES = (
    (
        "padding at the end takes part",
        "amounts.h",
        "size[settings.protectFirst + free - 1] == 0.0F",
        "false",
    ),
    (
        "no cap",
        "amounts.h",
        "std::min(exceeding(*matching, row, mLimit), removed)",
        "exceeding(*matching, row, mLimit)",
    ),
    ("what was set aside counts", "amounts.h", "problem.own(row)", "problem.tokens"),
    (
        "no row has to have a token",
        "../common/settings.h",
        "std::max<int64_t>(settings.minTokens, 1)",
        "settings.minTokens",
    ),
    ("as short as the last row", "amounts.h", "std::max(out.left, own - removed)", "own - removed"),
    ("set aside is a b", "match.cpp", "free / 2, mMetric", "mFree / 2, mMetric"),
    ("set aside is lost", "place.cpp", "        if (left < behind)", "        if (false)"),
    ("targets behind all slots", "place.cpp", "std::min(left, behind - 1)", "left"),
    (
        "copies have a size",
        "place.cpp",
        "out.sizeOut[slot] = 0.0F;",
        "out.sizeOut[slot] = out.sizeOut[slot - 1];",
    ),
    (
        "copies are not merged",
        "place.cpp",
        "out.head[slot] = out.head[slot - 1];",
        "out.head[slot] = -1;",
    ),
    (
        "protected tokens are not last",
        "place.cpp",
        "out.target[n] = behind + n - end;",
        "out.target[n] = left + n - end;",
    ),
    ("longer rows decide", "operators.cpp", "amounts.left == problem.tokens\n            && ", ""),
    (
        "the length alone tells",
        "operators.cpp",
        "\n            && std::all_of(removed.begin(), removed.end(), [](int64_t count) { return count == 0; })",
        "",
    ),
)


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


def _operators(plugins: Path, cases: int) -> list[str]:
    library = native.build(plugins / "build", _headers(), "", plugins / native.SOURCES.name)
    return ["-m", "tests.plugins.native", "--cases", str(cases), "--plugin", str(library)]


def _series(plugins: Path, cases: int) -> list[str]:
    # One method instead of six; which padding a row's own padding goes into is seen in few problems.
    return [*_operators(plugins, 4 * cases), "--method", "series"]


def _counted(plugins: Path, cases: int) -> list[str]:
    library = native.build_emulated(plugins / "build", _headers(), "", plugins / native.CUDA_SOURCES.name)
    command = ["-m", "tests.plugins.native", "--plugin", str(library)]
    return [*command, "--cases", str(cases // 2)]  # per method; emulated ones take longer


def _apart(plugins: Path, cases: int) -> list[str]:
    return [*_counted(plugins, 2 * cases), "--method", "series"]


KERNEL_SUBJECT = Subject("kernels", "local_merge", _kernels)
OPERATOR_SUBJECT = Subject("native", native.SOURCES.name, _operators)
SERIES_SUBJECT = Subject("series", native.SOURCES.name, _series)
COUNT_SUBJECT = Subject("counted", "local_merge", _counted)
CUDA_SUBJECT = Subject("cuda", native.CUDA_SOURCES.name, _counted)
APART_SUBJECT = Subject("apart", "local_merge", _apart)


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
    for file in HEADERS:
        source = (ROOT / KERNEL_SUBJECT.folder / file).read_text()
        parts = source.split(BARRIER)
        for number in range(1, len(parts)):
            why = parts[number].split("\n")[0].strip(" /")
            text = BARRIER.join(parts[:number]) + BARRIER.join(parts[number:])
            found.append(Mutant(f"barrier {number} of {file} deleted ({why})", KERNEL_SUBJECT, file, text))
    for subject, rules in (
        (KERNEL_SUBJECT, KERNEL_RULES), (OPERATOR_SUBJECT, NATIVE_RULES), (SERIES_SUBJECT, SERIES_RULES),
        (COUNT_SUBJECT, COUNT_RULES), (CUDA_SUBJECT, CUDA_RULES), (APART_SUBJECT, APART_RULES),
    ):  # fmt: skip
        for name, file, text, instead in rules:
            source = (ROOT / subject.folder / file).read_text()
            if source.count(text) != 1:
                raise ValueError(f"{name}: {text!r} is {source.count(text)} times in {file}")
            found.append(Mutant(f"{subject.name}: {name}", subject, file, source.replace(text, instead)))
    return found


def survives(mutant: Mutant, cases: int) -> bool:
    """Whether all cases still pass with the mutant."""
    with tempfile.TemporaryDirectory() as folder:
        plugins = Path(folder, "plugins")
        shutil.copytree(ROOT, plugins)
        (plugins / mutant.subject.folder / mutant.file).write_text(mutant.text)
        command = [sys.executable, *mutant.subject.search(plugins, cases)]
        try:
            return subprocess.run(command, capture_output=True, timeout=600).returncode == 0
        except subprocess.TimeoutExpired:  # it runs in circles
            return False


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
