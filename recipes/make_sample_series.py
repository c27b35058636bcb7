#!/usr/bin/env python3
"""Makes the bundled sample series: ``python recipes/make_sample_series.py -o tsmerge_export/demo/sample.csv``.

The series is generated, no measurement: three hourly columns with a daily and a weekly season, a slow trend,
autocorrelated noise and, in one of them, peaks. It is part of the project and under its licence (Apache-2.0); the
figures themselves may also be used under CC0 1.0.
"""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

import numpy as np

ROWS = 2016  # twelve weeks
SEED = 20240219
COLUMNS = ("load", "temperature", "visitors")


def make(rows: int = ROWS, seed: int = SEED) -> np.ndarray:
    """``[rows, 3]`` float64, rounded to three decimals."""
    rng = np.random.default_rng(seed)
    hour = np.arange(rows)
    day, week = 2 * np.pi * hour / 24, 2 * np.pi * hour / 168

    def noise(scale: float, memory: float) -> np.ndarray:
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
    return np.round(np.stack([load, temperature, visitors], axis=1), 3)


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", required=True, type=Path)
    output: Path = parser.parse_args().output
    start = datetime.datetime(2024, 1, 1)
    lines = ["date," + ",".join(COLUMNS)]
    for t, row in enumerate(make()):
        stamp = start + datetime.timedelta(hours=t)
        lines.append(f"{stamp:%Y-%m-%d %H:%M:%S}," + ",".join(f"{value:.3f}" for value in row))
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
