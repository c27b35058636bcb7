"""``tsmerge forecast``: files in, files out; every mistake is one line."""

from __future__ import annotations

import gzip
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import artefacts
from tests.events import process_at
from tests.forecast import upstream
from tsmerge_export.cli import main
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import base
from tsmerge_export.settings.config import MergeConfig

pytestmark = pytest.mark.filterwarnings("ignore")
BOLT, T5 = ("bolt-tiny", MergeConfig(method="none")), ("t5-tiny", MergeConfig(ratio="1/4"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two daily series with a column that is no number."""
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2024-01-01", periods=60),
                "target": upstream.walks(1, 60, seed=index)[0],
                "note": "text",
            }
        )
        for index, name in enumerate(("first", "second"))
    ]
    pd.concat(parts).to_csv(tmp_path / "data.csv", index=False)
    return tmp_path / "data.csv"


def run(which: tuple[str, MergeConfig], *args: object) -> int:
    return main(["forecast", str(artefacts.bundle(*which)), *map(str, args), "--threads", "1"])


@pytest.mark.parametrize("which", [BOLT, T5], ids=["bolt", "t5"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_forecasts_are_written(
    which: tuple[str, MergeConfig],
    suffix: str,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, picture = tmp_path / f"out.{suffix}", tmp_path / "out.png"
    assert run(which, table, "-h", 20, "-o", out, "--quantiles", "0.1,0.5,0.9", "--plot", picture) == 0
    assert capsys.readouterr().out == f"2 series, 20 steps each: {out}, {picture}\n"
    found = pd.read_csv(out, parse_dates=["timestamp"]) if suffix == "csv" else pd.read_parquet(out)
    names = ["item_id", "timestamp", "target_name", "predictions", "0.1", "0.5", "0.9"]
    assert list(found.columns) == names
    assert list(found["item_id"].unique()) == ["first", "second"]
    assert found["timestamp"].iloc[0] == pd.Timestamp("2024-03-01")
    assert which is BOLT or (found["0.1"] <= found["0.9"]).all()  # an untrained Bolt's quantiles cross
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 20_000
    again = tmp_path / f"again.{suffix}"
    assert run(which, table, "-h", 20, "-o", again, "--quantiles", "0.1,0.5,0.9") == 0
    assert again.read_bytes() == out.read_bytes()  # the seed is 0 unless given


def test_a_bare_column_of_numbers(tmp_path: Path) -> None:
    pd.DataFrame({"sales": np.arange(30.0)}).to_parquet(tmp_path / "data.parquet")
    out = tmp_path / "out.csv"
    assert run(BOLT, tmp_path / "data.parquet", "-o", out, "--plot", tmp_path / "out.svg") == 0
    found = pd.read_csv(out)
    assert list(found["step"]) == list(range(30, 46))
    assert set(found["item_id"]) == set(found["target_name"]) == {"sales"}


def shell(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    """What a pipe brings."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))


def test_from_pipe_to_pipe(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(BOLT, table, "-h", 4, "-o", tmp_path / "out.csv") == 0
    capsys.readouterr()
    for raw in (table.read_bytes(), gzip.compress(table.read_bytes())):
        shell(monkeypatch, raw)
        assert run(BOLT, "-", "-h", 4, "-o", "-") == 0
        told = capsys.readouterr()
        assert told.out == (tmp_path / "out.csv").read_text()
        assert told.err == "2 series, 4 steps each: standard output\n"
    shell(monkeypatch, b"")
    assert run(BOLT, "-", "-o", "-") == 2
    assert capsys.readouterr().err == "error: -: the file is empty; give a table with one row per time step\n"


def test_an_existing_file_wants_force(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    assert run(BOLT, table, "-h", 4, "-o", out) == 2
    assert "out.csv: exists already; give --force to replace it, or another name" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run(BOLT, table, "-h", 4, "-o", out, "--force") == 0
    assert out.read_text().startswith("item_id,")


def test_a_file_that_comes_meanwhile_is_kept(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.csv"
    make = base.Forecaster.predict_panel

    def slow(*args: Any, **options: Any) -> Any:
        out.write_text("precious")
        return make(*args, **options)

    monkeypatch.setattr(base.Forecaster, "predict_panel", slow)
    assert run(BOLT, table, "-h", 4, "-o", out) == 2
    assert "out.csv: was made or changed by someone else meanwhile" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv", "out.csv"]


def test_a_wide_table_equals_its_long_form(tmp_path: Path) -> None:
    """And the spelling of a European spreadsheet, newest row first, changes nothing."""
    days = pd.date_range("2024-01-01", periods=40)
    wide = pd.DataFrame(
        {"Date": days, "a": upstream.walks(1, 40, seed=1)[0], "b": upstream.walks(1, 40, seed=2)[0]}
    )
    wide = wide.round(3)
    long = wide.melt("Date", var_name="item_id", value_name="target").rename(columns={"Date": "timestamp"})
    wide.to_csv(tmp_path / "wide.csv", index=False)
    long.to_csv(tmp_path / "long.csv", index=False)
    wide[::-1].to_csv(
        tmp_path / "europe.csv",
        index=False,
        sep=";",
        decimal=",",
        date_format="%d.%m.%Y",
        encoding="utf-8-sig",
    )
    found = {}
    for name in ("wide", "long", "europe"):
        assert run(BOLT, tmp_path / f"{name}.csv", "-h", 5, "-o", tmp_path / f"{name}.out.csv") == 0
        found[name] = pd.read_csv(tmp_path / f"{name}.out.csv")
    assert list(found["wide"]["item_id"]) == ["a"] * 5 + ["b"] * 5 == list(found["wide"]["target_name"])
    assert found["wide"]["Date"].iloc[0] == "2024-02-10"
    for other in ("long", "europe"):
        pd.testing.assert_frame_equal(
            found[other].drop(columns="target_name").rename(columns={"timestamp": "Date"}),
            found["wide"].drop(columns="target_name"),
        )


def test_gaps_are_missing_values(table: Path, tmp_path: Path) -> None:
    """With a frequency, a row that is not there forecasts as one without a value."""
    whole = pd.read_csv(table)
    found = []
    for index, changed in enumerate(
        (whole.drop(index=[7, 8, 30]), whole.assign(target=whole.target.where(~whole.index.isin([7, 8, 30]))))
    ):
        changed.to_csv(tmp_path / f"{index}.csv", index=False)
        assert (
            run(BOLT, tmp_path / f"{index}.csv", "-h", 4, "--freq", "D", "-o", tmp_path / f"{index}.out.csv")
            == 0
        )
        found.append((tmp_path / f"{index}.out.csv").read_text())
    assert found[0] == found[1]
    assert run(BOLT, table, "-h", 4, "-o", tmp_path / "whole.csv") == 0
    assert (tmp_path / "whole.csv").read_text() != found[0]


def test_notes_of_the_library_reach_the_user(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each once, behind the results, also where the command fails later; and not of other warnings."""
    assert run(BOLT, table, "-h", 100, "--quantiles", "0.01,0.5", "-o", tmp_path / "out.csv") == 0
    told = capsys.readouterr()
    assert told.out == f"2 series, 100 steps each: {tmp_path / 'out.csv'}\n"
    notes = told.err.splitlines()
    assert notes == [
        "note: the model was made for 16 steps; 100 may be worse",
        "note: quantile levels beyond 0.1 to 0.9, its own, get its lowest or highest quantile",
    ]
    assert run(BOLT, table, "-h", 4, "-o", tmp_path / "second.csv") == 0
    assert capsys.readouterr().err == ""


def test_help_keeps_its_long_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", "--help"]) == 0
    assert "-h, --prediction-length" in " ".join(capsys.readouterr().out.split()).replace(" N", "")


def spoil(**columns: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**columns)


@pytest.mark.parametrize(
    ("change", "flags", "code", "match"),
    [
        (spoil(), ["--target", "price"], 2, "--target price: no such column in"),
        (spoil(), ["--id-column", "shop"], 2, "--id-column shop: no such column"),
        (spoil(), ["--timestamp-column", "when"], 2, "--timestamp-column when: no such column"),
        (spoil(), ["--target", "note"], 2, "column 'note' is not numeric ('text' in row 2)"),
        (spoil(target=np.nan), [], 2, "series 'first' has no observed value"),
        (lambda frame: frame.iloc[:0], [], 2, "has no rows"),
        (lambda frame: frame.drop(index=[7]), [], 2, "its timestamps are not regular"),
        (
            lambda frame: frame.rename(columns={"target": "a"}).assign(b=1),
            [],
            2,
            "which column shall be forecast?",
        ),
        (spoil(), ["-h", "0"], 2, "'0' is not a whole number of at least 1"),
        (spoil(), ["-h", "99999999"], 2, "prediction_length 99999999 is not a whole number from 1 to 65536"),
        (spoil(), ["--quantiles", "0.1,2"], 2, "not a list of levels from 0 to 1"),
        (spoil(), ["--num-samples", "5"], 2, "--num-samples has no effect"),
        (spoil(), ["--sep", "ab"], 2, "'ab' is not a separator"),
        (spoil(), ["--decimal", ";"], 2, "';' is not a decimal sign"),
        (spoil(), ["--sep", ",", "--decimal", ","], 2, "--sep , and --decimal , are the same sign"),
        (spoil(), ["--dayfirst", "--date-format", "%Y"], 2, "--dayfirst has no effect with --date-format"),
        (spoil(), ["--date-format", "%Y"], 2, "'2024-01-01' in row 2 does not have the format %Y"),
        (
            lambda frame: pd.concat([frame, frame.iloc[[3]]]),
            [],
            2,
            "has two rows at 2024-01-04 00:00:00 (rows 5 and 122)",
        ),
        (spoil(), ["--freq", "often"], 2, "freq 'often' is not a frequency"),
        (spoil(), ["--plot", "picture.gif"], 2, "--plot picture.gif: give a file that ends in .png"),
        (spoil(), ["--plot", "nowhere/picture.png"], 2, "cannot be written"),
    ],
)
def test_mistakes_are_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], flags: list[str], code: int, match: str,
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(pd.read_csv(table)).to_csv(table, index=False)
    assert run(BOLT, table, "-o", tmp_path / "out.csv", *flags) == code
    error = capsys.readouterr().err
    assert match in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.csv"]


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        (None, "data.csv", "no such file"),
        (b"x", "data.xlsx", "give a .csv, .tsv or .txt (also .gz) or .parquet file"),
        (b"nothing", "data.parquet", "cannot be read"),
        (b"", "data.csv", "the file is empty"),
        (b'a,b\n1,2\n"3,4', "data.csv", "a quote that begins in row 3 has no end"),
    ],
)
def test_unreadable_tables(
    content: bytes | None, name: str, match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert run(BOLT, tmp_path / name, "-o", tmp_path / "out.csv") == 2
    assert match in capsys.readouterr().err


def test_no_bundle_and_no_output(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", str(tmp_path), str(table), "-o", str(tmp_path / "out.csv")]) == 2
    assert "not a bundle" in capsys.readouterr().err
    assert main(["forecast", str(tmp_path), str(table)]) == 2
    assert "-o" in capsys.readouterr().err
    assert run(BOLT, table, "-o", tmp_path / "out.txt") == 2
    assert "give a file that ends in .csv, .parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "providers"),
    [
        ([], None),
        (["--providers", "cpu"], ["CPUExecutionProvider"]),
        (["--providers", "CUDA, cpu"], ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        (["--providers", "tensorrt,cuda,cuda"], ["TensorrtExecutionProvider", "CUDAExecutionProvider"]),
        (["--providers", "OpenVINOExecutionProvider"], ["OpenVINOExecutionProvider"]),
    ],
)
def test_providers_are_those_of_the_library(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    providers: list[str] | None,
) -> None:
    given: list[dict[str, Any]] = []

    def pipeline(_: str, **options: Any) -> Any:
        given.append(options)
        raise UsageError("seen")

    monkeypatch.setattr("tsmerge_export.forecast.pipeline", pipeline)
    library = tmp_path / "library.so"
    library.touch()
    for plugin in (None, str(library)):
        more = [] if plugin is None else ["--plugin", plugin]
        assert main(["forecast", "bundle", str(table), "-o", "-", *flags, *more]) == 2
        assert (given[-1]["providers"], given[-1]["plugin"]) == (providers, plugin)


@pytest.mark.parametrize(
    ("flags", "code", "match"),
    [
        (
            ["--providers", "cuda"],
            4,
            "provider CUDAExecutionProvider is not in this ONNX Runtime; it has CPU",
        ),
        (["--providers", "nonsense"], 4, "provider nonsense is not in this ONNX Runtime"),
        (["--providers", "cpu,,"], 2, "'cpu,,' is not a list of providers such as cuda,cpu"),
        (["--plugin", "nothing.so"], 2, "--plugin nothing.so: no such file"),
        (["--plugin", "text.so"], 3, "text.so: ONNX Runtime cannot load it"),
        (["--providers", "cpu", "--plugin", "text.so"], 3, "text.so: ONNX Runtime cannot load it"),
        (["--providers", "cpu,cuda", "--plugin", "text.so"], 2, "plugin has no effect unless"),
        (["--providers", "tensorrt", "--plugin", "text.so"], 2, "export it with --runtime tensorrt"),
    ],
)
def test_providers_that_are_not_there(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    code: int,
    match: str,
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.chdir(tmp_path)
    Path("text.so").write_text("no library")
    assert run(BOLT, table, "-o", "out.csv", *flags) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and match in said[0]
    assert not Path("out.csv").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("kind", "name"), [("import", "onnxruntime"), ("update", "3")])
def test_signal_from_outside(
    table: Path, tmp_path: Path, number: int, code: int, kind: str, name: str
) -> None:
    """While the process imports and loads, and while it draws: one line, no output, no bar left behind."""
    folder = tmp_path / "out"
    folder.mkdir()
    many = ["-h", "5000", "--num-samples", "1000", "--threads", "1"]
    outputs = ["-o", str(folder / "out.csv"), "--plot", str(folder / "out.png")]
    command = ["forecast", str(artefacts.bundle(*T5)), str(table), *many, *outputs]
    process = process_at(kind, name, "main", command)
    assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert out == ""
    assert err.splitlines()[-1] == "error: interrupted"
    assert all("Warning" in line or "warn" in line for line in err.splitlines()[:-1]), err
    assert list(folder.iterdir()) == []


def test_the_ratio_of_a_bundle_that_takes_one(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("bolt-tiny", MergeConfig(ratio="runtime:1/4"))
    out = [tmp_path / f"{name}.csv" for name in ("usual", "same", "fast")]
    assert run(chosen, table, "-o", out[0]) == 0
    assert run(chosen, table, "-o", out[1], "--ratio", "25%") == 0
    assert run(chosen, table, "-o", out[2], "--ratio", "1/2") == 0
    assert out[0].read_bytes() == out[1].read_bytes() != out[2].read_bytes()
    capsys.readouterr()
    for which, ratio, words in (
        (chosen, "0.7", "--ratio '0.7' is not a ratio; give a number from 0 (nothing merges) to 1/2"),
        (chosen, "runtime", "--ratio 'runtime' is not a ratio"),
        (T5, "1/4", "its ratio was fixed when it was exported, so that ratio has no effect; leave it out"),
    ):
        assert run(which, table, "-o", tmp_path / "none.csv", "--ratio", ratio) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "none.csv").exists()
