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

from tsmerge_export.demo.series import COLUMNS, make


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
