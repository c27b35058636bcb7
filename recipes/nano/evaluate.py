"""Mean squared error of the point forecast against the seasonal naive forecast, per column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from tsmerge_export.tools.distill.synthetic import HORIZON, SEASON, Array

from .series import FloatArray, Panel

CONTEXT = 512
Forecast = Callable[[Array], Array]


@dataclass(frozen=True)
class Score:
    """Figures of one data set; errors in squared standard deviations of the training part."""

    dataset: str
    columns: tuple[str, ...]
    windows: int
    model: tuple[float, ...]
    naive: tuple[float, ...]

    @property
    def median_model(self) -> float:
        """Median over columns of the model's MSE."""
        return float(np.median(self.model))

    @property
    def median_naive(self) -> float:
        """Median over columns of the seasonal naive forecast's MSE."""
        return float(np.median(self.naive))

    def as_json(self) -> dict[str, object]:
        """Plain types for `training.json`."""
        return asdict(self) | {"median_model": self.median_model, "median_naive": self.median_naive}


def seasonal_naive(contexts: Array, horizon: int = HORIZON, season: int = SEASON) -> Array:
    """The last `season` values of [windows, length], repeated to [windows, horizon]."""
    return contexts[:, -season:][:, np.arange(horizon) % season]


def column_mse(predicted: Array, actual: Array) -> float:
    """Mean of the squared differences over windows and steps, in float64."""
    return float(np.mean((predicted.astype(np.float64) - actual.astype(np.float64)) ** 2))


def cut_windows(column: FloatArray, first: int, last: int, count: int | None) -> tuple[Array, Array]:
    """Contexts [n, 512] and targets [n, 64]; every target lies within rows `first` to `last` (exclusive).

    Without `count`, targets follow each other without overlap; with it, `count` targets are spread evenly.
    """
    final = last - HORIZON
    starts = np.arange(first, final + 1, HORIZON)
    if count is not None:
        starts = np.linspace(first, final, count).astype(int)
    starts = starts[starts >= CONTEXT]
    contexts = np.stack([column[s - CONTEXT : s] for s in starts]).astype(np.float32)
    targets = np.stack([column[s : s + HORIZON] for s in starts]).astype(np.float32)
    return contexts, targets


def score(panel: Panel, forecast: Forecast, split: str, count: int | None) -> Score:
    """Scores a forecast function on `split`: "validation" (60 to 80 %) or "test" (last 20 %)."""
    rows = {
        "validation": (panel.train_end, panel.validation_end),
        "test": (panel.validation_end, len(panel.values)),
    }
    model, naive, windows = [], [], 0
    for column in range(panel.values.shape[1]):
        contexts, targets = cut_windows(panel.values[:, column], *rows[split], count)
        model.append(column_mse(forecast(contexts), targets))
        naive.append(column_mse(seasonal_naive(contexts), targets))
        windows = len(contexts)
    return Score(panel.name, panel.columns, windows, tuple(model), tuple(naive))


def print_table(scores: list[Score], console: Console) -> None:
    """One row per column and one per data set with the medians."""
    table = Table(title=f"MSE on the test split, context {CONTEXT}, horizon {HORIZON}, standardised")
    for heading in ("data set", "column", "windows", "model", f"seasonal naive ({SEASON})", "model / naive"):
        table.add_column(heading, justify="left" if heading in ("data set", "column") else "right")
    for entry in scores:
        rows = [*zip(entry.columns, entry.model, entry.naive, strict=True)]
        rows.append(("median", entry.median_model, entry.median_naive))
        for name, model, naive in rows:
            figures = [f"{value:.4f}" for value in (model, naive, model / naive)]
            table.add_row(entry.dataset, name, str(entry.windows), *figures)
        table.add_section()
    console.print(table)
