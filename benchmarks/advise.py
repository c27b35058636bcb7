"""Does the score of `tsmerge advise` foretell in which order merging costs accuracy? Rank correlation over data sets.

    python benchmarks/advise.py [--data DIR] [--models bolt,t5] [--windows 12] [--output FILE.md] [--plot FILE.png]

A data set is one series: the columns of ETTh1, ETTh2 and exchange_rate where DIR holds the published files, series of
statsmodels, and generated ones with known spectrum. The trained models that ship forecast ``--windows`` windows of each
(last 20 %) in ONNX Runtime, merged (local, k = 1) and unmerged; measured is the change of the MSE of the median.
Foretold is the order by the score (:func:`tsmerge_export.tools.advise.advice.score`), which is computed from the
histories of the same windows without a forecast, and was fixed before this was run. Nothing is timed.

Reported: Spearman's rank correlation of foretold and measured order (1: the same; 0: no relation), its p value, and a
95 % interval from a bootstrap over data sets, for the score and for each figure alone. Columns of one table are not
independent, so p values are too small: read them as a lower bound.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy import stats

from tsmerge_export import demo
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.errors import TsmergeError
from tsmerge_export.families.base import Component
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.advise.study import columns_of
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table, read_table, rolling_windows
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.window_errors import Forecasts, run_named

MODELS = {"bolt": demo.CHRONOS_BOLT, "t5": demo.CHRONOS_T5}
FILES = ("ETTh1.csv", "ETTh2.csv", "exchange_rate.txt.gz")
RATIOS = ("1/10", "1/4", "1/2")
MAIN = "1/4"
FIGURES = ("score", "entropy", "distortion", "redundancy")
LABELS = {"score": "score", "entropy": "spectral entropy", "distortion": "THD", "redundancy": "redundancy"}
CONTEXT = 512
STEPS = 4000
SEED = 20261122


@dataclass
class Result:
    """One data set on one model: the figures, and the change of the MSE in per cent by ratio."""

    source: str
    name: str
    context: int
    figures: dict[str, float]
    change: dict[str, float]


def generated() -> Iterator[tuple[str, np.ndarray]]:
    """Series of known spectrum, 4,000 steps, level 10."""
    rng = np.random.default_rng(SEED)
    t = np.arange(STEPS)
    white = rng.standard_normal(STEPS)
    spectrum = np.fft.rfft(rng.standard_normal(STEPS))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    pink = np.fft.irfft(spectrum, STEPS)
    tone = np.sin(2 * np.pi * t / 24)
    harmonic = sum(np.sin(2 * np.pi * n * t / 24) / n for n in (1, 3, 5, 7))
    red = np.zeros(STEPS)
    for i in range(1, STEPS):
        red[i] = 0.9 * red[i - 1] + white[i]
    yield "white noise", 10 + white
    yield "pink noise (1/f)", 10 + pink / pink.std()
    yield "random walk (1/f^2)", 10 + np.cumsum(rng.standard_normal(STEPS))
    yield "AR(1), 0.9", 10 + red
    yield "tone, period 24", 10 + tone
    yield "tone + noise 0.1", 10 + tone + 0.1 * rng.standard_normal(STEPS)
    yield "tone + noise 0.5", 10 + tone + 0.5 * rng.standard_normal(STEPS)
    yield "tone + noise 2", 10 + tone + 2 * rng.standard_normal(STEPS)
    yield "odd harmonics of 24", 10 + harmonic
    yield "odd harmonics + noise 0.5", 10 + harmonic + 0.5 * rng.standard_normal(STEPS)
    yield "periods 24 and 7", 10 + tone + np.sin(2 * np.pi * t / 7)


def from_statsmodels() -> Iterator[tuple[str, np.ndarray]]:
    """Series of statsmodels with at least 200 observations in order of time."""
    from statsmodels import datasets

    yield "co2 (weekly)", datasets.co2.load_pandas().data["co2"].to_numpy(np.float64)
    yield "sunspots (yearly)", datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(np.float64)
    nino = datasets.elnino.load_pandas().data
    yield "elnino (monthly)", nino.drop(columns="YEAR").to_numpy(np.float64).ravel()
    macro = datasets.macrodata.load_pandas().data
    for column in ("realgdp", "unemp", "infl"):
        yield f"macrodata {column} (quarterly)", macro[column].to_numpy(np.float64)


def data_sets(folder: Path | None) -> Iterator[tuple[str, str, np.ndarray]]:
    """Source, name and values ``[T]`` of every data set."""
    for file in FILES if folder is not None else ():
        table = read_table(folder / file)
        for name, values in zip(table.columns, table.values.T, strict=True):
            yield file.split(".")[0], name, values
    for name, values in from_statsmodels():
        yield "statsmodels", name, values
    for name, values in generated():
        yield "generated", name, values


class Forecaster:
    """A trained model, unmerged and merged, in ONNX Runtime."""

    def __init__(self, source: Path, folder: Path, threads: int) -> None:
        loaded = CheckpointSource.load(source)
        self.model, self.family, self.component = loaded.model, loaded.of_family, loaded.components[0]
        none = MergeConfig(method="none")
        compilation = Compilation(loaded, none)
        compilation.plain(self.component, folder)
        self.runs: dict[str, Callable[..., Any]] = {}
        for ratio in (None, *RATIOS):
            merge = MergeConfig(method="none") if ratio is None else MergeConfig(ratio=ratio)
            session = open_session(self._built(compilation, self.component, merge, folder).merged, threads)
            self.runs[ratio or "unmerged"] = partial(
                run_named, session, [spec.name for spec in self.component.outputs]
            )
        rest = [self._built(compilation, part, none, folder) for part in loaded.components[1:]]
        self.decoded = decoded_by(self.family, self.model, rest, Checks(threads=threads))

    def _built(self, compilation: Compilation, part: Component, merge: MergeConfig, folder: Path) -> Built:
        return compilation.merged(part, Path(tempfile.mkdtemp(dir=folder)), merge)

    def measure(self, source: str, name: str, values: np.ndarray, windows: int) -> Result | None:
        """None where no window varies."""
        horizon = self.family.horizon(self.model)
        context = min(CONTEXT, self.family.context(self.model), len(values) - 2 * horizon)
        cut = rolling_windows(Table(source, (name,), values[:, None]), context, horizon, limit=windows)
        columns, _, _ = columns_of(self.family, self.component, self.model, cut.context, cut.columns)
        if not columns:
            return None
        errors = {
            ratio: np.nansum(Forecasts(self.family, self.model, run, SEED, self.decoded).errors(cut)["mse"])
            for ratio, run in self.runs.items()
        }
        change = {ratio: 100 * (errors[ratio] / errors["unmerged"] - 1) for ratio in RATIOS}
        figures = {figure: getattr(columns[0], figure) for figure in FIGURES}
        return Result(source, name, context, figures, change)


def correlation(results: list[Result], figure: str, ratio: str) -> tuple[float, float, float, float]:
    """Spearman's rho of foretold and measured order, its p value, and a 95 % bootstrap interval over data sets.

    A higher figure foretells a smaller change: the foretold order is that of minus the figure.
    """
    foretold = -np.array([result.figures[figure] for result in results])
    measured = np.array([result.change[ratio] for result in results])
    rho, p = stats.spearmanr(foretold, measured)
    rng = np.random.default_rng(SEED)
    draws = [rng.integers(len(results), size=len(results)) for _ in range(2000)]
    with np.errstate(all="ignore"):
        resampled = [stats.spearmanr(foretold[d], measured[d]).statistic for d in draws]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return float(rho), float(p), float(low), float(high)


def page(results: dict[str, list[Result]], arguments: str) -> str:
    """Everything in Markdown."""
    names = ("torch", "onnxruntime", "chronos-forecasting", "scipy", "statsmodels")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    lines = [
        f"Made on {datetime.date.today().isoformat()} by `python benchmarks/advise.py {arguments}`; Python "
        f"{platform.python_version()}, {versions}.",
    ]
    for model, found in results.items():
        lines += [
            "",
            f"### chronos-{model}-nano, {len(found)} data sets",
            "",
            "Spearman's rank correlation of foretold and measured order [95 % bootstrap interval], p:",
            "",
            "| foretold by | " + " | ".join(f"remove {ratio}" for ratio in RATIOS) + " |",
            "|---|" + "---|" * len(RATIOS),
        ]
        best: dict[str, float] = {}
        for figure in FIGURES:
            cells = []
            for ratio in RATIOS:
                rho, p, low, high = correlation(found, figure, ratio)
                cells.append(f"{rho:+.2f} [{low:+.2f}, {high:+.2f}], p {p:.2g}")
                if ratio == MAIN:
                    best[figure] = rho
            lines.append(f"| {LABELS[figure]} | " + " | ".join(cells) + " |")
        single = max((f for f in FIGURES if f != "score"), key=lambda f: best[f])
        lines += [
            "",
            f"Best single figure at {MAIN}: {LABELS[single]} ({best[single]:+.2f}; the score {best['score']:+.2f}).",
            "",
            "| data set | context | spectral entropy | THD | redundancy | score | "
            + " | ".join(f"MSE, {ratio}" for ratio in RATIOS)
            + " |",
            "|---|" + "---:|" * (5 + len(RATIOS)),
        ]
        for r in sorted(found, key=lambda r: -r.figures["score"]):
            cells = [f"{r.figures[f]:.2f}" for f in ("entropy", "distortion", "redundancy", "score")]
            changes = [f"{r.change[ratio]:+.1f} %" for ratio in RATIOS]
            lines.append(f"| {r.source}: {r.name} | {r.context} | " + " | ".join([*cells, *changes]) + " |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, list[Result]], path: Path) -> None:
    """Change of the MSE against score and each figure, a row per model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.8 * len(results)), layout="constrained")
    for row, (model, found) in enumerate(results.items()):
        for column, name in enumerate(FIGURES):
            axes: Any = figure.add_subplot(len(results), len(FIGURES), row * len(FIGURES) + column + 1)
            for source in dict.fromkeys(r.source for r in found):
                mine = [r for r in found if r.source == source]
                axes.scatter(
                    [r.figures[name] for r in mine], [r.change[MAIN] for r in mine], s=22, label=source
                )
            rho = correlation(found, name, MAIN)[0]
            axes.set(xlabel=LABELS[name], title=f"chronos-{model}-nano, rho {rho:+.2f}")
            axes.set_yscale("symlog", linthresh=10)
            if name == "distortion":
                axes.set_xscale("log")
            axes.axhline(0, color="0.6", lw=1)
            if column == 0:
                axes.set_ylabel(f"change of the MSE, remove {MAIN} (%)")
                axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help=f"folder with {', '.join(FILES)}; default: without them")
    parser.add_argument("--models", default="bolt,t5", help="bolt, t5 or both")
    parser.add_argument("--windows", type=int, default=12, help="windows per data set (default: 12)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    parser.add_argument("--plot", type=Path, help="draw the scatter plots")
    args = parser.parse_args()
    models = args.models.split(",")
    if any(model not in MODELS for model in models):
        print(f"error: --models {args.models}: choose from {', '.join(MODELS)}", file=sys.stderr)
        return 2
    results: dict[str, list[Result]] = {}
    try:
        sets = list(data_sets(args.data))
        with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task("advise", total=len(models) * len(sets))
            for model in models:
                forecaster = Forecaster(MODELS[model], Path(folder), args.threads)
                results[model] = []
                for source, name, values in sets:
                    bar.update(task, description=f"{model}: {source} {name}")
                    found = forecaster.measure(source, name, values, args.windows)
                    if found is None:
                        print(f"{source} {name}: does not vary; left out", file=sys.stderr)
                    else:
                        results[model].append(found)
                    bar.advance(task)
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    given = "" if args.data is None else "--data DIR "
    text = page(results, f"{given}--models {args.models} --windows {args.windows} --threads {args.threads}")
    print(text)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text)
    if args.plot is not None:
        plot(results, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
