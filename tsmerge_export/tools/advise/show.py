"""The tables, sentences and picture of ``tsmerge advise``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsmerge_export.console.terminal import print_table
from tsmerge_export.tools.advise.advice import DO_NOT, RATIOS, Advice, Figures, candidates
from tsmerge_export.tools.advise.study import Study
from tsmerge_export.tools.tune.crossover import WORTH


def command_of(source: str, advice: Advice) -> str | None:
    """The export to begin with."""
    if advice.own is not None:
        return f"tsmerge-export {source}"
    return None if advice.ratio is None else f"tsmerge-export {source} --merge local --ratio {advice.ratio}"


def print_study(found: Study, advice: Advice, source: str, component: str) -> None:
    """Figures, reasons and advice on stdout."""
    figures = found.figures
    for shown in (_columns, _layers, _speeds):
        title, header, rows = shown(figures)
        print_table(header, rows, title)
    print(
        f"{100 * figures.shrinking:.0f} % of the FLOPs of component {component!r} are in products that merging makes "
        "smaller"
    )
    if figures.first_share < 1:
        print(
            f"tokens, FLOPs and times are those of {component!r} alone, {100 * figures.first_share:.0f} % of the FLOPs "
            "of one forecast; the rest of it gains only in cross-attention"
        )
    for note in found.notes:
        print(f"note: {note}")
    for reason in advice.reasons:
        print(f"- {reason}")
    command = command_of(source, advice)
    begin = "" if command is None else f", begin with: {command}"
    print(f"advice: {advice.verdict}{begin}", flush=True)


_Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def _columns(figures: Figures) -> _Table:
    title = "Series (0 regular, 1 noisy; score: the higher, the less merging is expected to cost)"
    rows = [
        (c.name, *(f"{value:.2f}" for value in (c.entropy, c.distortion, c.redundancy, c.score)))
        for c in figures.columns
    ]
    return title, ("column", "spectral entropy", "THD", "neighbours' cosine", "score"), rows


def _layers(figures: Figures) -> _Table:
    rows = [
        (
            str(layer.layer), str(layer.tokens), f"{layer.neighbours:.2f}", f"{layer.best:.2f}",
            f"{100 * layer.alike:.0f} %",
        )
        for layer in figures.layers
    ]  # fmt: skip
    header = ("layer", "tokens", "neighbours' cosine", "best partner's", "alike neighbours")
    return "Tokens at the merge points, nothing merged", header, rows


def _speeds(figures: Figures) -> _Table:
    rows = []
    for length in dict.fromkeys(speed.length for speed in figures.speeds):
        mine = [speed for speed in figures.speeds if speed.length == length]
        mark = " *" if length == figures.length else ""
        cells = (
            f"{s.expected:.2f} ({s.ideal:.2f})" + ("" if s.left is None else f", {s.left}") for s in mine
        )
        rows.append((f"{length}{mark}", str(mine[0].tokens), *cells))
    title = f"Expected speed-up at batch {figures.batch} (ideal by FLOPs), and tokens left"
    return title, ("length", "tokens", *map(_called, candidates(figures.trained))), rows


def _called(name: str) -> str:
    return f"remove {name}" if name in RATIOS else name


def plot(found: Study, advice: Advice, path: Path) -> None:
    """Spectra of the columns, cosines by layer, expected speed-up against length."""
    from matplotlib.figure import Figure

    figures = found.figures
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    figure.suptitle(f"advice: {advice.verdict}" + (f" ({advice.ratio} per layer)" if advice.ratio else ""))
    spectra: Any = figure.add_subplot(1, 3, 1)
    for column in figures.columns:
        shown = found.spectra[column.name]
        spectra.plot(shown.frequency, shown.power, lw=1, label=f"{column.name}, entropy {column.entropy:.2f}")
    spectra.set(xlabel="frequency (cycles per step)", ylabel="share of power", xscale="log", yscale="log")
    spectra.xaxis.set_minor_formatter("")
    spectra.legend(fontsize=7)
    cosines: Any = figure.add_subplot(1, 3, 2)
    layers = [layer.layer for layer in figures.layers]
    for name, values in (
        ("neighbours' cosine", [layer.neighbours for layer in figures.layers]),
        ("best partner's", [layer.best for layer in figures.layers]),
        ("share of tokens alike", [layer.alike for layer in figures.layers]),
    ):
        cosines.plot(layers, values, marker="o", label=name)
    cosines.set(xlabel="merge point", ylim=(min(0.0, cosines.get_ylim()[0]), 1.02), xticks=layers)
    cosines.legend(fontsize=7)
    speeds: Any = figure.add_subplot(1, 3, 3)
    for name in candidates(figures.trained):
        mine = [speed for speed in figures.speeds if speed.ratio == name]
        (line,) = speeds.plot(
            [s.length for s in mine], [s.expected for s in mine], marker="o", label=_called(name)
        )
        speeds.plot([s.length for s in mine], [s.ideal for s in mine], ls=":", color=line.get_color())
    speeds.axhline(WORTH, color="0.5", lw=1, ls="--")
    colour = "tab:red" if advice.verdict == DO_NOT else "tab:green"
    speeds.axvline(figures.length, color=colour, lw=1)
    speeds.set(xlabel="context (steps)", ylabel="expected speed-up (dotted: by FLOPs)", xscale="log")
    speeds.set_xticks([s.length for s in figures.speeds if s.ratio == RATIOS[0]])
    speeds.get_xaxis().set_major_formatter("{x:.0f}")
    speeds.minorticks_off()
    speeds.legend(fontsize=7)
    figure.savefig(path, dpi=120)
