"""From which context length on merging pays: merged against unmerged ONNX Runtime, and what `tsmerge advise` expects.

    python benchmarks/crossover.py [--models bolt,t5] [--lengths 16,32,...,2048] [--batch 8] [--threads 1] [--runs 40]
                                   [--output FILE.md] [--plot FILE.png]

The first components of the trained models that ship (for Chronos-T5 the encoder alone), with their context raised to
the longest length. At every length all files take turns in one process, in alternating order; a speed-up is the median
of the ratios of neighbouring runs. Beside it stands what the cost model of ``tsmerge advise`` expects; its constants
are fitted to the unmerged file's times in this run, it never sees a merged one. Merging pays where it is faster by 5 %
or more at that length and at all longer ones.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner
from rich.console import Console
from rich.progress import Progress

from tsmerge_export import demo
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.advise.advice import RATIOS
from tsmerge_export.tools.advise.cost_model import fit, work_of
from tsmerge_export.tools.tune.crossover import WORTH

MODELS = {"bolt": demo.CHRONOS_BOLT, "t5": demo.CHRONOS_T5}
UNMERGED = "unmerged"
_WARM_UP = 3


@dataclass
class Row:
    """One length of one model: milliseconds unmerged, speed-up and what was expected, by ratio."""

    length: int
    unmerged_ms: float
    measured: dict[str, float]
    expected: dict[str, float]


def with_context(path: Path, context: int) -> CheckpointSource:
    """A model, its longest context raised to ``context``; the same weights."""
    source = CheckpointSource.load(path)
    if context <= source.longest:
        return source
    config = source.of_family.config_of(source.model)
    config["chronos_config"] = {**config["chronos_config"], "context_length": context}
    model = source.of_family.build(config)
    model.load_state_dict(source.model.state_dict())
    return CheckpointSource.load(model)


def time_in_turn(calls: dict[str, Any], runs: int) -> dict[str, list[float]]:
    """Seconds of every run of every call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(runs + _WARM_UP):
        for name in names if turn % 2 == 0 else names[::-1]:
            start = time.perf_counter()
            calls[name]()
            if turn >= _WARM_UP:
                times[name].append(time.perf_counter() - start)
    return times


def measure(source: Path, lengths: list[int], batch: int, threads: int, runs: int, told: Any) -> list[Row]:
    """All lengths of one model."""
    raised = with_context(source, max(lengths))
    component, compilation = raised.components[0], Compilation(raised, MergeConfig(method="none"))
    sessions, flat = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        compilation.plain(component, Path(folder))
        for ratio in (UNMERGED, *RATIOS):
            merge = MergeConfig(method="none") if ratio == UNMERGED else MergeConfig(ratio=ratio)
            place = Path(tempfile.mkdtemp(dir=folder))
            built = compilation.merged(component, place, merge)
            sessions[ratio] = open_session(built.merged, threads, timed=True)
            flat[ratio] = inliner.inline_local_functions(onnx.load(built.merged))
    found, works = [], []
    for length in lengths:
        inputs = component.example(raised.model, batch, length, seed=length)
        calls = {name: (lambda s=s, i=inputs: s.run(None, i)) for name, s in sessions.items()}
        found.append(time_in_turn(calls, runs))
        works.append({name: work_of(graph, inputs) for name, graph in flat.items()})
        told()
    # As in advise: of the fastest run, since what else the machine does only adds.
    costs = fit([work[UNMERGED] for work in works], [min(times[UNMERGED]) for times in found])
    rows = []
    for length, times, work in zip(lengths, found, works, strict=True):
        base = times[UNMERGED]
        rows.append(
            Row(
                length,
                1e3 * statistics.median(base),
                {r: statistics.median(b / t for b, t in zip(base, times[r], strict=True)) for r in RATIOS},
                {r: costs.seconds(work[UNMERGED]) / costs.seconds(work[r]) for r in RATIOS},
            )
        )
    return rows


def pays_from(rows: list[Row], which: str, ratio: str) -> str:
    """The shortest length from which on the ratio pays."""
    found = None
    for row in reversed(rows):
        if getattr(row, which)[ratio] < WORTH:
            break
        found = row.length
    return "at none" if found is None else f"from {found}"


def page(results: dict[str, list[Row]], args: argparse.Namespace) -> str:
    """Everything in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "onnxruntime"))
    lines = [
        f"Made on {datetime.date.today().isoformat()} by `python benchmarks/crossover.py --models {args.models} "
        f"--lengths {args.lengths} --batch {args.batch} --threads {args.threads} --runs {args.runs}`; "
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.",
        "",
        f"Speed-up over unmerged ONNX Runtime at batch {args.batch}, {args.threads} thread(s), local merging, k = 1; "
        "in brackets what the cost model of `tsmerge advise` expects.",
    ]
    for model, rows in results.items():
        lines += [
            "",
            f"### chronos-{model}-nano{', encoder' if model == 't5' else ''}",
            "",
            "| context | unmerged | " + " | ".join(f"remove {ratio}" for ratio in RATIOS) + " |",
            "|---:|---:|" + "---:|" * len(RATIOS),
        ]
        for row in rows:
            cells = [f"{row.measured[r]:.2f} ({row.expected[r]:.2f})" for r in RATIOS]
            lines.append(f"| {row.length} | {row.unmerged_ms:.2f} ms | " + " | ".join(cells) + " |")
        pays = [f"{pays_from(rows, 'measured', r)} ({pays_from(rows, 'expected', r)})" for r in RATIOS]
        lines.append("| pays | | " + " | ".join(pays) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, list[Row]], path: Path) -> None:
    """Speed-up against length, measured and expected, a panel per model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(results), 4.5), layout="constrained")
    for number, (model, rows) in enumerate(results.items()):
        axes: Any = figure.add_subplot(1, len(results), number + 1)
        lengths = [row.length for row in rows]
        for ratio in RATIOS:
            (line,) = axes.plot(
                lengths, [row.measured[ratio] for row in rows], marker="o", label=f"remove {ratio}"
            )
            axes.plot(lengths, [row.expected[ratio] for row in rows], ls=":", color=line.get_color())
        axes.axhline(WORTH, color="0.5", lw=1, ls="--")
        axes.set(title=f"chronos-{model}-nano", xlabel="context (steps)", xscale="log", xticks=lengths)
        axes.set_ylabel("speed-up over unmerged (dotted: expected by advise)")
        axes.get_xaxis().set_major_formatter("{x:.0f}")
        axes.minorticks_off()
        axes.legend(fontsize=8)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="bolt,t5", help="bolt, t5 or both")
    parser.add_argument("--lengths", default="16,32,64,128,256,512,1024,2048", help="steps, ascending")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    parser.add_argument("--plot", type=Path, help="draw the curves")
    args = parser.parse_args()
    models = args.models.split(",")
    if any(model not in MODELS for model in models):
        print(f"error: --models {args.models}: choose from {', '.join(MODELS)}", file=sys.stderr)
        return 2
    lengths = sorted({int(text) for text in args.lengths.split(",")})
    results = {}
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("crossover", total=len(models) * len(lengths))
        for model in models:
            bar.update(task, description=f"crossover: {model}")
            results[model] = measure(
                MODELS[model], lengths, args.batch, args.threads, args.runs, lambda: bar.advance(task)
            )
    text = page(results, args)
    print(text)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text)
    if args.plot is not None:
        plot(results, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
