"""The picture of ``tsmerge bench``: time per call against length and batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tsmerge_export.errors import MissingDependencyError, UsageError
from tsmerge_export.tools.bench.compare import Row

_FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: str | os.PathLike[str]) -> None:
    """Refuse ``--plot`` before any work.

    Raises:
        UsageError: another kind of file. MissingDependencyError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in _FORMATS:
        raise UsageError(f"--plot {path}: give a file that ends in {', '.join(_FORMATS)}")
    if find_spec("matplotlib") is None:
        raise MissingDependencyError("--plot needs matplotlib; pip install 'tsmerge-export[plot]'")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: a panel for each model and number of threads; a line for each candidate and batch.

    Where there is one length only, the horizontal axis is the batch.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    done = [row for row in rows if row.p50_ms is not None]
    panels = list(dict.fromkeys((row.group, row.threads) for row in done))
    by_length = len({row.length for row in done}) > 1
    figure = Figure(figsize=(6.0 * max(1, len(panels)), 4.5), layout="constrained")
    for number, (group, threads) in enumerate(panels):
        axes: Any = figure.add_subplot(1, len(panels), number + 1)
        mine = [row for row in done if (row.group, row.threads) == (group, threads)]
        colours: dict[str, Any] = {}
        for candidate in dict.fromkeys(row.candidate for row in mine):
            lines = sorted({row.batch if by_length else row.length for row in mine})
            for line, fixed in enumerate(lines):
                points = sorted(
                    (row.length if by_length else row.batch, row.p50_ms)
                    for row in mine
                    if row.candidate == candidate and (row.batch if by_length else row.length) == fixed
                )
                (drawn,) = axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    linestyle=("-", "--", "-.", ":")[line % 4],
                    color=colours.get(candidate),
                    label=f"{candidate}, {'batch' if by_length else 'length'} {fixed}",
                )
                colours[candidate] = drawn.get_color()
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("length (steps)" if by_length else "batch (series)")
        axes.set_ylabel("median time per call (ms)")
        axes.set_title(f"{Path(group).name}, {threads} thread{'s' if threads > 1 else ''}")
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)
