"""The flags of tables: the same on every command that reads one, and all by one reader."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tsmerge_export.cli import main
from tsmerge_export.cli.parser import tsmerge_parser
from tsmerge_export.cli.tables import table_options
from tsmerge_export.tables.options import TableOptions

COMMANDS = {
    "export": ["MODEL"], "validate": ["DIR", "MODEL"], "bench": ["MODEL"], "tune": ["MODEL", "--data", "x.csv"],
    "compress": ["MODEL"], "advise": ["MODEL", "--data", "x.csv"],
    "lowpass": [], "forecast": ["DIR", "x.csv", "-o", "out.csv"],
}  # fmt: skip
FLAGS = [
    "--sep", "tab", "--decimal", ",", "--dayfirst", "--freq", "D", "--id-column", "shop", "--timestamp-column", "day",
    "--target", "sold",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_a_table_has_the_flags(command: str) -> None:
    args = tsmerge_parser().parse_args([command, *COMMANDS[command], *FLAGS])
    options = table_options(args)
    want = TableOptions("\t", ",", None, True, "D", "shop", "day", "sold")
    assert options == want
    assert options.words() == FLAGS  # what a report prints is what reads the same
    again = tsmerge_parser().parse_args([command, *COMMANDS[command], "--no-dayfirst", "--date-format", "%Y"])
    assert (again.dayfirst, again.date_format) == (False, "%Y")


@pytest.fixture
def signal() -> pd.DataFrame:
    days = pd.date_range("2024-01-01", periods=64)
    return pd.DataFrame({"Date": days, "load": np.sin(np.arange(64) / 3).round(3), "heat": np.arange(64.0)})


def lowpass(folder: Path, *args: str) -> dict[str, object]:
    assert main(["lowpass", "--column", "load", "--json", str(folder / "out.json"), *args]) == 0
    found: dict[str, object] = json.loads((folder / "out.json").read_text())["effects"]
    return found


def test_data_in_any_form_are_the_same(
    signal: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signal.to_csv(tmp_path / "wide.csv", index=False)
    long = signal.melt("Date", var_name="item_id", value_name="y").sample(frac=1, random_state=0)
    long.to_csv(tmp_path / "long.tsv", index=False, sep="\t")
    signal[::-1].to_csv(tmp_path / "eu.txt.gz", index=False, sep=";", decimal=",", date_format="%d.%m.%Y")
    signal.to_parquet(tmp_path / "wide.parquet")
    want = lowpass(tmp_path, "--data", str(tmp_path / "wide.csv"))
    for name in ("long.tsv", "eu.txt.gz", "wide.parquet"):
        assert lowpass(tmp_path, "--data", str(tmp_path / name)) == want, name
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO((tmp_path / "long.tsv").read_bytes()))
    )
    assert lowpass(tmp_path, "--data", "-") == want
    assert capsys.readouterr().err == ""


def test_notes_and_mistakes(signal: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gap.csv"
    signal.drop(index=20).to_csv(file, index=False)
    lowpass(tmp_path, "--data", str(file))
    told = capsys.readouterr().err
    assert told.startswith(
        f"note: --data {file}: the table: its timestamps are not regular: row 22 (2024-01-22"
    )
    assert told.count("\n") == 1
    lowpass(tmp_path, "--data", str(file), "--freq", "D")
    assert (
        capsys.readouterr().err == "load: has missing values; rows 21 to 63 are its longest stretch without\n"
    )
    for args, match in (
        (["--sep", ";"], "error: --sep is about the file of --data; give it too, or leave this out"),
        (["--data", str(file), "--timestamp-column", "when"], "--timestamp-column when: no such column in"),
        (["--data", str(file), "--freq", "2D"], "is not on the grid of --freq 2D"),
        (["--data", str(file), "--freq", "often"], "--freq 'often' is not a frequency"),
    ):
        assert main(["lowpass", *args]) == 2
        error = capsys.readouterr().err
        assert match in error and error.count("\n") == 1
