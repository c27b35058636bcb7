"""The generated series behind the bundled sample: hourly, with daily and weekly seasons, a trend, noise and peaks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROWS = 2016  # twelve weeks
SEED = 20240219
COLUMNS = ("load", "temperature", "visitors")


def make(rows: int = ROWS, seed: int = SEED) -> npt.NDArray[np.float64]:
    """``[rows, 3]`` float64, rounded to three decimals."""
    rng = np.random.default_rng(seed)
    hour = np.arange(rows)
    day, week = 2 * np.pi * hour / 24, 2 * np.pi * hour / 168

    def noise(scale: float, memory: float) -> npt.NDArray[np.float64]:
        out = np.zeros(rows)
        for t in range(1, rows):
            out[t] = memory * out[t - 1] + scale * rng.normal()
        return out

    load = (
        50
        + 12 * np.sin(day - 1.9)
        + 4 * np.sin(2 * day - 0.4)
        + 5 * np.sin(week)
        + 0.002 * hour
        + noise(1.0, 0.8)
    )
    temperature = 11 + 5 * np.sin(day - 2.4) + 6 * np.sin(2 * np.pi * hour / rows - 1.2) + noise(0.4, 0.95)
    opened = np.clip(np.sin(day - 1.6), 0, None) ** 2
    weekend = np.where(hour // 24 % 7 >= 5, 1.7, 1.0)
    visitors = 20 + 180 * opened * weekend * np.exp(noise(0.05, 0.9)) + np.abs(noise(4.0, 0.3))
    made: npt.NDArray[np.float64] = np.round(np.stack([load, temperature, visitors], axis=1), 3)
    return made
