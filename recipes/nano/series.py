"""Real series: fetch, verify by SHA-256, read, and split by time.

Sources: ETTh1 and ETTh2 from ETDataset (hourly, 7 columns, 17,420 rows), exchange_rate from
multivariate-time-series-data (daily, 8 columns, 7,588 rows). The files are downloaded or read from a folder;
none of them is part of this project.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import UserError

FloatArray = npt.NDArray[np.float64]

TRAIN_SHARE = 0.6
VALIDATION_END = 0.8


@dataclass(frozen=True)
class Source:
    """One upstream file: its name, where it comes from, and what it must hash to."""

    name: str
    file: str
    url: str
    sha256: str


SOURCES = (
    Source(
        "ETTh1",
        "ETTh1.csv",
        "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv",
        "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    ),
    Source(
        "ETTh2",
        "ETTh2.csv",
        "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh2.csv",
        "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    ),
    Source(
        "exchange_rate",
        "exchange_rate.txt.gz",
        "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/master/exchange_rate/"
        "exchange_rate.txt.gz",
        "6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d",
    ),
)


@dataclass(frozen=True)
class Panel:
    """Columns of one data set, standardised by the mean and standard deviation of their first 60 %.

    values: [rows, columns] float64, unit: standard deviations of the training part.
    """

    name: str
    columns: tuple[str, ...]
    values: FloatArray

    @property
    def train_end(self) -> int:
        """First row that is not training data."""
        return int(len(self.values) * TRAIN_SHARE)

    @property
    def validation_end(self) -> int:
        """First row of the test split."""
        return int(len(self.values) * VALIDATION_END)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def standardise(raw: FloatArray) -> FloatArray:
    """[rows, columns] to the same shape, by mean and population standard deviation of the first 60 % of rows."""
    head = raw[: int(len(raw) * TRAIN_SHARE)]
    std = head.std(axis=0)
    return np.asarray((raw - head.mean(axis=0)) / np.where(std > 0, std, 1.0), dtype=np.float64)


def _download(source: Source, cache: Path) -> Path:
    """Fetch one file into `cache`; it is written beside and renamed only after its hash is right."""
    target = cache / source.file
    if target.exists() and sha256_of(target) == source.sha256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(source.url, timeout=60) as answer:
            body = answer.read(64 * 1024 * 1024)
    except (urllib.error.URLError, OSError) as exc:
        raise UserError(
            f"cannot download {source.url} ({exc}); fetch it by hand and pass its folder with --data, "
            "or train without real series with --synthetic-only"
        ) from exc
    if hashlib.sha256(body).hexdigest() != source.sha256:
        raise UserError(f"{source.url} has another SHA-256 than expected; pass a verified copy with --data")
    beside = target.with_name(target.name + ".part")
    beside.write_bytes(body)
    os.replace(beside, target)
    return target


def locate(data: Path | None, cache: Path) -> dict[str, Path]:
    """Paths of the verified files by data set name, from `data` if given, else downloaded into `cache`."""
    found: dict[str, Path] = {}
    for source in SOURCES:
        if data is None:
            found[source.name] = _download(source, cache)
            continue
        path = data / source.file
        if not path.is_file():
            raise UserError(f"--data: {path} does not exist; put {source.file} there or leave --data out")
        if sha256_of(path) != source.sha256:
            raise UserError(f"--data: {path} differs from the upstream file (SHA-256); get {source.url}")
        found[source.name] = path
    return found


def read_panel(name: str, path: Path) -> Panel:
    """Read one verified file into a standardised `Panel`."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as handle:
        lines = handle.read().splitlines()
    if path.suffix == ".csv":
        columns = tuple(lines[0].split(",")[1:])
        rows = [line.split(",")[1:] for line in lines[1:]]
    else:
        rows = [line.split(",") for line in lines]
        columns = tuple(str(i) for i in range(len(rows[0])))
    return Panel(name, columns, standardise(np.array(rows, dtype=np.float64)))


def load_panels(data: Path | None, cache: Path) -> list[Panel]:
    """All data sets, verified and standardised, in the order of `SOURCES`."""
    return [read_panel(name, path) for name, path in locate(data, cache).items()]
