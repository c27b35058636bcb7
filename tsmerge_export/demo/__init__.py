"""Files that ship with the package: trained nano models and a generated sample series."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

SAMPLE_SERIES = _HERE / "sample.csv"
"""Generated hourly series, three columns; see ``recipes/make_sample_series.py``."""

CHRONOS_BOLT = _HERE / "chronos-bolt-nano"
"""Folder in Hugging Face format; see ``recipes/train_nano.py``."""

CHRONOS_BOLT_HALF = _HERE / "chronos-bolt-half-nano"
"""The same model with weights that are trained for half of the tokens in every layer; see docs/distill.md."""

CHRONOS_T5 = _HERE / "chronos-t5-nano"
"""Folder in Hugging Face format; see ``recipes/train_nano.py``."""
