"""A picture of forecasts: history, point forecast and the bands between quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_MOST_SERIES = 6
_HISTORY = 3  # horizons


def figure(
    history: pd.DataFrame,
    found: pd.DataFrame,
    names: tuple[str, str],
    targets: Sequence[str],
    levels: Sequence[float],
) -> Any:
    """Draw the first six series, one below the other; each target of a series is one.

    Args:
        history: the data. found: forecasts as ``predict_df`` gives them. names: id and timestamp columns.
        targets: columns of the history; where there is one, it is that of all series whatever ``found`` calls it.
        levels: quantile levels in ``found``; pairs that lie evenly around the median become bands.

    Returns:
        A matplotlib figure, made without a display.
    """
    from matplotlib.figure import Figure

    from tsmerge_export.tables.times import timestamps

    identity, time = names
    if found[time].dtype.kind == "M":
        history = history.assign(**{time: timestamps(history[time], f"column {time!r}")})
    drawn = [(name, target) for name in found[identity].unique() for target in targets][:_MOST_SERIES]
    picture = Figure(figsize=(10, 1 + 2.4 * len(drawn)), layout="constrained")
    low = sorted(level for level in levels if level < 0.5)
    bands = [(level, other) for level in low for other in levels if abs(level + other - 1) < 1e-9]
    for index, (name, target) in enumerate(drawn):
        axes = picture.add_subplot(len(drawn), 1, index + 1)
        future = found[found[identity] == name]
        if len(targets) > 1:
            future = future[future["target_name"] == target]
        past = history[history[identity] == name].sort_values(time)
        past = past.tail(max(_HISTORY * len(future), 50))
        axes.plot(past[time], past[target], color="black", linewidth=1, label="history")
        for lower, upper in bands:
            axes.fill_between(
                future[time], future[str(lower)], future[str(upper)],
                color="tab:blue", alpha=0.6 / len(bands), linewidth=0,
                label=f"{lower:g} to {upper:g}" if (lower, upper) == bands[0] else None,
            )  # fmt: skip
        axes.plot(future[time], future["predictions"], color="tab:blue", label="forecast")
        axes.set_title(str(name) if len(targets) == 1 else f"{name}: {target}", loc="left", fontsize="medium")
        axes.margins(x=0.01)
        if index == 0:
            axes.legend(loc="upper left", fontsize="small", frameon=False, ncols=3)
    return picture
