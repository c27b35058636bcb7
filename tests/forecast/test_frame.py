"""Data frames in and out, against chronos-forecasting's ``predict_df`` where its model is the same."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tsmerge_export as tsm
from tests import artefacts
from tests.forecast import upstream
from tsmerge_export.errors import MissingDependencyError, UsageError
from tsmerge_export.settings.config import MergeConfig

NONE = MergeConfig(method="none")
#: As the installed pandas calls them: M and H below 2.2.
MONTH_END, HOUR = pd.offsets.MonthEnd().freqstr, pd.offsets.Hour().freqstr


def frame(freq: str = "h", lengths: tuple[int, ...] = (50, 30, 3)) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {
                "item_id": name,
                "timestamp": pd.date_range("2024-01-31", periods=length, freq=freq),
                "target": upstream.walks(1, length, seed=length)[0].astype(np.float64),
                "note": "ignored",
            }
        )
        for name, length in zip(("b", "a", "c"), lengths, strict=False)
    ]
    return pd.concat(parts, ignore_index=True)


def bolt() -> Any:
    return tsm.pipeline(artefacts.bundle("bolt-tiny", NONE), threads=1)


@pytest.mark.parametrize("freq", ["h", "D", MONTH_END, "15min", "W-MON"])
def test_equals_upstream(freq: str) -> None:
    data = frame(freq).sample(frac=1, random_state=0)
    for options in ({}, {"prediction_length": 7, "quantile_levels": [0.1, 0.9]}, {"batch_size": 1}):
        want = upstream.bolt("bolt-tiny").predict_df(data, **options)
        got = bolt().predict_df(data, **options)
        assert list(got.columns) == list(want.columns)
        same = ["item_id", "timestamp", "target_name"]
        pd.testing.assert_frame_equal(got[same], want[same], check_dtype=False)
        numbers = want.columns.difference(same)
        np.testing.assert_allclose(got[numbers], want[numbers], rtol=1e-4, atol=1e-4)


def test_names_of_columns_and_integer_ids() -> None:
    data = frame().rename(columns={"item_id": "shop", "timestamp": "when", "target": "sold"})
    data["shop"] = data["shop"].map({"a": 1, "b": 2, "c": 3})
    got = bolt().predict_df(
        data, id_column="shop", timestamp_column="when", target="sold", prediction_length=2
    )
    assert list(got.columns[:4]) == ["shop", "when", "target_name", "predictions"]
    assert list(got["shop"]) == [2, 2, 1, 1, 3, 3]


def test_samples_do_not_depend_on_the_batches() -> None:
    model = tsm.pipeline(artefacts.bundle("t5-tiny", NONE), threads=1)
    data = frame(lengths=(40, 40, 40))
    got = [model.predict_df(data, seed=3, batch_size=size) for size in (1, 2, 256)]
    for other in got[1:]:
        pd.testing.assert_frame_equal(got[0], other, rtol=1e-4)


def test_rows_are_taken_as_they_are_without_validation() -> None:
    data = frame()
    pd.testing.assert_frame_equal(
        bolt().predict_df(data), bolt().predict_df(data, validate_inputs=False, freq="h")
    )
    with pytest.raises(UsageError, match="not grouped by id"):
        bolt().predict_df(data.sample(frac=1, random_state=0), validate_inputs=False, freq="h")


def one(stamps: Any, values: Any, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"item_id": "a", "timestamp": stamps, "target": values, **more})


@pytest.mark.parametrize("freq", [None, "h"])
@pytest.mark.parametrize(
    "rows", [slice(None), slice(None, None, -1), slice(25)], ids=["sorted", "newest first", "before"]
)
def test_hours_across_a_change_of_clocks(freq: str | None, rows: slice) -> None:
    """The zone stays, the hour that comes twice is two, and the values are those of the same hours in UTC."""
    stamps = pd.date_range("2024-11-02", periods=50, freq="h", tz="America/New_York")
    data = one(stamps, upstream.walks(1, 50, seed=1)[0])[rows]
    got = bolt().predict_df(data, prediction_length=4, freq=freq)
    last = data["timestamp"].max()
    assert str(got["timestamp"].dt.tz) == "America/New_York"
    assert list(got["timestamp"]) == [last + pd.Timedelta(hours=h) for h in range(1, 5)]
    plain = data.assign(timestamp=data["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None))
    want = bolt().predict_df(plain, prediction_length=4, freq=freq)
    pd.testing.assert_frame_equal(got.drop(columns="timestamp"), want.drop(columns="timestamp"))


def test_gaps_become_missing_values() -> None:
    values = upstream.walks(1, 40, seed=2)[0].astype(np.float64)
    values[[5, 6, 30]] = np.nan
    whole = one(pd.date_range("2024", periods=40), values)
    want = bolt().predict_df(whole)
    pd.testing.assert_frame_equal(bolt().predict_df(whole.dropna(), freq="D"), want)
    with pytest.raises(
        UsageError, match=r"row 7 \(2024-01-08 00:00:00\) comes 3 days after the row before it.*give freq"
    ):
        bolt().predict_df(whole.dropna())
    masked = whole.assign(target=np.ma.masked_invalid(values).filled(np.nan))
    pd.testing.assert_frame_equal(bolt().predict_df(masked), want)


def test_frames_of_other_libraries() -> None:
    """By narwhals, as Arrow's tables show; zones and missing values pass through it."""
    pyarrow = pytest.importorskip("pyarrow")
    stamps = pd.date_range("2024-11-02", periods=50, freq="h", tz="America/New_York")
    data = one(stamps, upstream.walks(1, 50, seed=1)[0])
    data.loc[3, "target"] = np.nan
    table = pyarrow.Table.from_pandas(data, preserve_index=False)
    pd.testing.assert_frame_equal(
        bolt().predict_df(table), bolt().predict_df(data), check_dtype=False, check_column_type=False
    )
    with pytest.raises(UsageError, match="column 'target' is not in the data"):
        bolt().predict_df(table.drop_columns(["target"]))


def test_frames_of_other_libraries_without_narwhals(monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(
        MissingDependencyError, match="narwhals is not installed; it reads data frames of pyarrow"
    ):
        bolt().predict_df(pyarrow.table({"target": [1.0]}))


def change(**columns: Any) -> pd.DataFrame:
    return frame().assign(**columns)


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        (frame().drop(columns="target"), {}, "column 'target' is not in the data; it has: item_id"),
        (frame(), {"target": ["target"]}, "not the name of one column"),
        (frame(), {"id_column": "shop"}, "column 'shop' is not in the data"),
        (frame().iloc[:0], {}, "no rows"),
        (change(target="twelve"), {}, "column 'target' is not numeric.*'twelve'"),
        (change(target=True), {}, "column 'target' is not numeric"),
        (change(timestamp="yesterday-ish"), {}, "column 'timestamp' does not hold timestamps"),
        (change(timestamp=3), {}, "holds numbers, not timestamps"),
        (change(timestamp=pd.NaT), {}, "rows without a timestamp"),
        (change(item_id=None), {}, "rows without an id"),
        (change(target=np.nan), {}, "series 'b' has no observed value"),
        (
            frame().drop(index=[5]),
            {},
            r"series 'b': its timestamps are not regular: row 6 \(2024-01-31 06:00:00\)",
        ),
        (
            frame("h", (5,)).iloc[[0, 1, 2, 3, 3]],
            {},
            r"series 'b' has two rows at .* \(rows 3 and 3\); keep one",
        ),
        (
            change(timestamp="01/02/2024"),
            {},
            "'01/02/2024' in row 0 can be read as more than one date; convert",
        ),
        (
            frame(),
            {"freq": "2h"},
            r"series 'b': row 1 .* is not on the grid of freq 2h, which begins at row 0",
        ),
        (
            pd.concat([frame("h", (5,)), frame("D", (4, 4)).iloc[4:]]),
            {},
            f"series 'b' has frequency {HOUR}, 'a' D",
        ),
        (frame(lengths=(2,)), {}, "no series has three rows"),
        (frame(), {"freq": "fortnight"}, "freq 'fortnight' is not a frequency"),
        (frame(), {"prediction_length": 0}, "prediction_length 0"),
        (frame(), {"batch_size": 0}, "batch_size 0"),
        ({"target": [1]}, {}, "df is a dict"),
    ],
)
def test_bad_data_are_one_line(data: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        bolt().predict_df(data, **options)
    assert "\n" not in str(caught.value)
