"""The table, the picture and the page of ``tsmerge lowpass``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tsmerge_export.console.terminal import print_table
from tsmerge_export.tools.lowpass.spectrum import FAINT
from tsmerge_export.tools.lowpass.study import Effect

HEADER = (
    *("signal", "noise"),
    *("low: merged", "Gaussian", "high: merged", "Gaussian"),
    *("half power at: merged", "Gaussian"),
    *("change: merged", "Gaussian"),
    *("error: noisy", "merged", "Gaussian"),
)
_STEPS_SHOWN = 192


def rows(effects: Sequence[Effect]) -> list[tuple[str, ...]]:
    """Cells of the table, as :data:`HEADER` names them; the last three only where the clean signal is known."""
    return [
        (
            one.noise,
            "-" if one.level is None else f"{one.level:g}",
            *(f"{part[name]:.2f}" for part in (one.low, one.high) for name in ("merged", "gaussian")),
            *(_frequency(one.cutoff[name]) for name in ("merged", "gaussian")),
            *(f"{one.change[name]:.3f}" for name in ("merged", "gaussian")),
            *(
                "-" if one.error is None else f"{one.error[n]:.3f}"
                for n in ("original", "merged", "gaussian")
            ),
        )
        for one in effects
    ]


def _frequency(value: float | None, nowhere: str = "-") -> str:
    return nowhere if value is None else f"{value:.3f}"


def print_effects(effects: Sequence[Effect], settings: str) -> None:
    """The table on stdout."""
    header, group = [], ""
    for name in HEADER:  # in parts, a column may stand without its neighbour
        group = name.partition(":")[0] + ": " if ":" in name else group
        header.append(name if ":" in name or not group else group + name)
    cells = [(row[0] if row[1] == "-" else f"{row[0]}, noise {row[1]}", *row[2:]) for row in rows(effects)]
    print_table((header[0], *header[2:]), cells, f"{settings}; {counts(effects)}")
    print(
        "low, high: power left below and above the highest frequency that the tokens left could hold evenly spaced"
    )
    print(
        "half power: cycles per step; change: of the signal; error: against the clean signal (both mean squared,"
    )
    print("as a share of the variance)")


def plot(effects: Sequence[Effect], path: Path) -> None:
    """A row for each kind of signal: its spectra by level, the linear gains of all levels, and what it looks like."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(one.noise for one in effects))
    by = {name: [one for one in effects if one.noise == name] for name in names}
    width = max(len(own) for own in by.values())
    figure = Figure(figsize=(3.9 * (width + 2), 3.1 * len(names)), layout="constrained")
    grid: Any = figure.subplots(len(names), width + 2, squeeze=False)
    for line, name in zip(grid, names, strict=True):
        for panel, one in zip(line, by[name], strict=False):
            _spectrum(panel, one)
        for panel in line[len(by[name]) : width]:
            panel.set_axis_off()
        _gains(line[width], by[name])
        _signal(line[width + 1], by[name][-1])
    grid[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=80)


def _spectrum(panel: Any, one: Effect) -> None:
    spectrum = one.spectrum
    floor = 1e-7 * spectrum.original.max()
    styles = (
        ("original", "0.6", "-"),
        ("gaussian", "tab:orange", "--"),
        ("merged", "tab:blue", "-"),
    )
    for name, colour, line in styles:
        power = np.maximum(getattr(spectrum, name), floor)
        panel.loglog(spectrum.frequency, power, line, color=colour, label=name, lw=1.6)
    panel.axvline(one.edge, color="0.4", lw=0.8, ls=":")
    panel.set_title(_title(one), fontsize=10)
    panel.set_xlabel("cycles per step")
    panel.set_ylabel("power")
    panel.set_ylim(bottom=floor)
    panel.grid(visible=True, alpha=0.3)


def _gains(panel: Any, effects: Sequence[Effect]) -> None:
    """Linear part of merging's gain by level, and the Gaussian's, without bands of next to no power."""
    for number, one in enumerate(effects):
        heard = one.spectrum.share >= FAINT
        frequency = one.spectrum.frequency[heard]
        shade = str(0.75 - 0.75 * (number + 1) / len(effects)) if len(effects) > 1 else "tab:blue"
        label = "merged" if one.level is None else f"merged, level {one.level:g}"
        panel.semilogx(frequency, one.spectrum.linear_merged[heard], color=shade, lw=1.6, label=label)
        if number == len(effects) - 1:
            gaussian = one.spectrum.linear_gaussian[heard]
            panel.semilogx(frequency, gaussian, "--", color="tab:orange", lw=1.6, label="gaussian")
    panel.axhline(0.5**0.5, color="0.4", lw=0.8, ls=":")
    panel.set_title("linear gain (dotted: half power)", fontsize=10)
    panel.set_xlabel("cycles per step")
    panel.legend(fontsize=7)
    panel.grid(visible=True, alpha=0.3)


def _signal(panel: Any, one: Effect) -> None:
    """The last steps of the first signal."""
    for name, colour, line in (
        ("original", "0.6", "-"),
        ("gaussian", "tab:orange", "--"),
        ("merged", "tab:blue", "-"),
    ):
        panel.plot(one.picture[name][-_STEPS_SHOWN:], line, color=colour, lw=1.2)
    panel.set_title(_title(one), fontsize=10)
    panel.set_xlabel("steps")
    panel.grid(visible=True, alpha=0.3)


def _title(one: Effect) -> str:
    words = one.noise.replace("$", r"\$")
    return words if one.level is None else f"{words} noise, level {one.level:g}"


def page(
    effects: Sequence[Effect], settings: str, command: str, versions: Mapping[str, str], image: str | None
) -> str:
    """The page of a run, as Markdown.

    Args:
        settings: of the merging, in words. command: that made it. image: of the picture, beside the page.
    """
    tools = ", ".join(f"{name} {version}" for name, version in versions.items())
    table = [HEADER, tuple("---" if n == 0 else "---:" for n in range(len(HEADER))), *rows(effects)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    picture = "" if image is None else f"\n![spectra of original, merged and filtered signals]({image})\n"
    return f"""# What merging does to a signal

Made on {date.today().isoformat()} by

```
{command}
```

with {tools}. Merging: {settings}; {counts(effects)}.

Merging acts on tokens as an adaptive low-pass filter (arXiv 2405.17951). Here the tokens are the values of a signal:
the reference `local_merge` runs several times in a row, and `unmerge` gives every step the value of the token that it
went into. Beside it stands a Gaussian filter with as many tokens: sigma is such that its filter matrix S has
`trace(S'S) = N M / T` degrees of freedom, M of T tokens being left of N steps. White noise then leaves it with the
share M / T of its variance, as it leaves averages over M fixed blocks: what merging is where it does not look at the
values.
{picture}
{chr(10).join(lines)}

{findings(effects)}
- **low, high**: power below and above M / 2T cycles per step (the dotted line: the highest frequency that M evenly
  spaced tokens can hold) as a share of the original's there; above 1, power was added.
- **half power at**: cycles per step where the linear part of the gain (regression of the result's coefficients on the
  original's) falls to half the power, among bands that hold at least 1/10,000 of it.
- **change**: mean squared difference from the signal that went in. **error**: from the clean signal, a sinusoid and one
  of four times its period and half its amplitude. Both are shares of the variance. Noise levels are standard
  deviations, the clean signal's being 1; harmonic noise is all overtones in equal power, so that its level is a total
  harmonic distortion.
- Spectra are discrete cosine transforms (the signal mirrored at its ends), means over all signals of a kind.
"""


def counts(effects: Sequence[Effect]) -> str:
    """How many tokens are left, and the Gaussian's width; of all signals, which differ only in steps of the last."""
    seen = dict.fromkeys((one.tokens, one.left, f"{one.sigma:.3g}") for one in effects)
    return "; ".join(
        f"{left:,} of {tokens:,} tokens left, sigma {sigma} steps" for tokens, left, sigma in seen
    )


def findings(effects: Sequence[Effect]) -> str:
    """What the figures say about each kind of noise, as Markdown; nothing for a signal of the user's."""
    said = []
    for name in dict.fromkeys(one.noise for one in effects):
        own = sorted((one for one in effects if one.noise == name), key=lambda one: one.level or 0.0)
        if len(own) < 2 or own[0].level is None:
            continue
        levels = ", ".join(f"{one.level:g}" for one in own)
        edges = {
            which: ", ".join(_frequency(one.cutoff[which], "nowhere") for one in own)
            for which in ("merged", "gaussian")
        }
        high = ", ".join(f"{one.high['merged']:.2f}" for one in own)
        said.append(
            f"- {name} noise of levels {levels}: half power at {edges['merged']} (Gaussian: {edges['gaussian']}), "
            f"high power left {high}."
        )
    return "\n".join(said) + "\n" if said else ""
