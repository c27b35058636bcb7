"""``tsmerge forecast`` with series that are forecast together: what ``predict_df`` gives of the same data."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsmerge_export as tsm
from tests import artefacts
from tests.forecast.subjects import CHRONOS_2, NONE
from tests.forecast.test_chronos2 import data
from tsmerge_export.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")


def run(*args: object) -> int:
    return main(["forecast", str(CHRONOS_2.bundle(NONE)), *map(str, args), "--threads", "1"])


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A table of two series with words, a bool and numbers, in a European spreadsheet's spelling; what is ahead."""
    df, future = data()
    df.to_csv(tmp_path / "data.csv", index=False, sep=";", decimal=",")
    future.rename(columns={"heat": " Heat"}).to_csv(tmp_path / "ahead.csv", index=False, sep=";", decimal=",")
    return tmp_path


def forecast(**options: Any) -> pd.DataFrame:
    df, future = data()
    df = df.astype({"open": str, "kind": str})  # a text file knows no order of categories
    known = options.pop("known", True)
    return tsm.pipeline(CHRONOS_2.bundle(NONE), threads=1).predict_df(
        df, future if known else None, prediction_length=9, **options
    )


def assert_written(path: Path, want: pd.DataFrame) -> None:
    got = pd.read_csv(path)
    assert list(got.columns) == list(want.columns)
    for name in want.columns:
        if want[name].dtype.kind == "f":
            np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6)
        else:
            assert list(got[name].astype(str)) == [
                str(value).removesuffix(" 00:00:00") for value in want[name]
            ]


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--future", "ahead.csv"], {}),
        (
            ["--targets", "target,Visits", "--plot", "out.png"],
            {"target": ["target", "visits"], "known": False},
        ),
        (
            ["--future", "ahead.csv", "--cross-learning", "--batch-size", "5"],
            {"cross_learning": True, "batch_size": 5},
        ),
    ],
    ids=["future", "targets", "cross-learning"],
)
def test_long_tables(
    files: Path,
    flags: list[str],
    options: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    assert run("data.csv", "-h", 9, "-o", "out.csv", *flags) == 0, said(capsys)
    assert_written(files / "out.csv", forecast(**options))
    covariates = "'heat', 'open', 'kind'" if "--targets" in flags else "'visits', 'heat', 'open', 'kind'"
    assert f"data.csv: columns taken for covariates: {covariates}" in said(capsys)
    assert not (files / "out.png").exists() or (files / "out.png").stat().st_size > 20_000


def test_a_table_without_ids_is_one_series(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    df, future = (frame[frame["item_id"] == "a"].drop(columns="item_id") for frame in data())
    df, future = df[["timestamp", "target", "visits", "heat"]], future[["timestamp", "heat"]]
    df.to_parquet(files / "one.parquet")
    future.to_csv(files / "one.csv", index=False)
    out = files / "out.csv"
    options = ("-h", 9, "-o", out, "--force", "--future", files / "one.csv")
    assert run(files / "one.parquet", *options, "--targets", "target,visits") == 0, said(capsys)
    name = "target,visits"
    model = tsm.pipeline(CHRONOS_2.bundle(NONE), threads=1)
    want = model.predict_df(
        df.assign(item_id=name), future.assign(item_id=name), target=["target", "visits"], prediction_length=9
    )
    assert_written(out, want)
    df.drop(columns="target").to_csv(files / "wide.csv", index=False)
    assert run(files / "wide.csv", *options) == 2
    assert "every column of" in said(capsys)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--targets", "target", "--target", "target"], "--target and --targets both name what is forecast"),
        (["--targets", "target,nothing"], "--targets nothing: no such column in "),
        (["--targets", "target,target"], "--targets: 'target' is there twice; name each column once"),
        (["--targets", "target,Target"], "--targets target,Target: column 'target' is there twice"),
        (
            ["--future", "huge.csv"],
            "--future huge.csv: column 'heat' has infinite values, or values beyond float32",
        ),
        (["--batch-size", "3"], "--batch-size has no effect without --cross-learning"),
        (["--future", "none.csv"], "--future none.csv: no such file"),
        (["--future", "data.pdf"], "--future data.pdf: unknown kind of file"),
        (["--future", "words.csv"], "--future words.csv: column 'heat' is not numeric ('hot' in row 3)"),
        (["--future", "new.csv"], "--future new.csv: column 'new' has no history in the table"),
        (["--future", "no_ids.csv"], "--future no_ids.csv: has no column 'item_id'"),
        (["--future", "short.csv"], "--future short.csv: series 'b' has 8 rows, expected 9"),
    ],
)
def test_mistakes_are_one_line(
    files: Path,
    flags: list[str],
    match: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    (files / "data.pdf").write_text("no table")
    ahead = pd.read_csv("ahead.csv", sep=";", skipinitialspace=True).rename(columns=str.lower)
    ahead.iloc[:-1].to_csv("short.csv", index=False)
    ahead.assign(new=1).to_csv("new.csv", index=False)
    ahead.drop(columns="item_id").to_csv("no_ids.csv", index=False)
    ahead.assign(heat=1e39).to_csv("huge.csv", index=False)
    words = ahead.astype({"heat": object})
    words.loc[1, "heat"] = "hot"
    words.to_csv("words.csv", index=False)
    assert run("data.csv", "-h", 9, "-o", "out.csv", *flags) == 2
    err = said(capsys)
    assert match in err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not (files / "out.csv").exists()


def test_covariates_beyond_float32_are_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data()[0].assign(heat=1e39).to_csv(files / "huge.csv", index=False)
    assert run(files / "huge.csv", "-h", 9, "-o", files / "out.csv") == 2
    assert f"{files / 'huge.csv'}: column 'heat' has infinite values" in said(capsys)


def test_stdin_is_read_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert run("-", "-o", "-", "--future", "-") == 2
    assert "--future -: stdin can be read once only" in said(capsys)


@pytest.mark.parametrize("flags", [["--future", "ahead.csv"], ["--targets", "target"], ["--cross-learning"]])
def test_other_families_take_none_of_it(
    files: Path, flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    bundle = artefacts.bundle("bolt-tiny", NONE)
    assert main(["forecast", str(bundle), "data.csv", "-o", "out.csv", *flags]) == 2
    assert f"{flags[0]} has no effect: {bundle} is a bundle of chronos-bolt, which forecasts each" in said(
        capsys
    )
