"""``tsmerge forecast``: a table in, forecasts with quantiles out, a picture of them if asked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.files import check_apart
from tsmerge_export.cli.handler import raise_if_interrupted
from tsmerge_export.errors import MissingDependencyError, UsageError, first_line
from tsmerge_export.output_file import OutputFile

if TYPE_CHECKING:
    import pandas as pd

_FORMATS = (".csv", ".parquet")
# Names that are found without a flag.
_IDS, _TIMES, _TARGETS = ("item_id", "unique_id", "id"), ("timestamp", "date", "ds", "time"), ("target", "y")
_STEP = "step"
_SERIES = "item_id"


def forecast(args: argparse.Namespace) -> int:
    """``tsmerge forecast DIR TABLE``. Returns 0."""
    _check_paths(args)
    from tsmerge_export.pipelines import pipeline
    from tsmerge_export.progress import LateBar

    bar = LateBar("forecast", raise_if_interrupted)
    model = pipeline(args.bundle, threads=args.threads, progress=bar)
    options: dict[str, Any] = {"seed": args.seed}
    if args.num_samples is not None:
        if model.forecast_type != "samples":
            raise UsageError(
                f"--num-samples has no effect: {args.bundle} gives quantiles, it draws no samples"
            )
        options["num_samples"] = args.num_samples
    frame, names = _table(args)
    identity, time, target = names
    found = model.predict_df(
        frame,
        id_column=identity,
        timestamp_column=time,
        target=target,
        prediction_length=args.prediction_length,
        quantile_levels=args.quantiles,
        freq=args.freq if time != _STEP else "D",
        **options,
    )
    if time == _STEP:
        found[time] = (found[time] - _ORIGIN()).dt.days
        frame = frame.assign(**{time: (frame[time] - _ORIGIN()).dt.days})
    written = [args.output]
    if args.plot is not None:
        _draw(args.plot, frame, found, names, args.quantiles)
        written.append(args.plot)
    _write(args.output, found)
    steps = len(found) // found[identity].nunique()
    print(
        f"{found[identity].nunique()} series, {steps} steps each: {', '.join(map(str, written))}", flush=True
    )
    return 0


def _check_paths(args: argparse.Namespace) -> None:
    """Fail on a wrong path before any work is done."""
    made: list[OutputFile] = []
    for flag, name, suffixes in (("-o", "output", _FORMATS), ("--plot", "plot", (".png", ".svg", ".pdf"))):
        path = getattr(args, name)
        if path is None:
            continue
        if Path(path).suffix.lower() not in suffixes:
            raise UsageError(f"{flag} {path}: give a file that ends in {', '.join(suffixes)}")
        file = OutputFile(flag, path)
        check_apart(args, file, made)
        setattr(args, name, file)
        made.append(file)
    if not Path(args.table).is_file():
        raise UsageError(f"{args.table}: no such file")
    if Path(args.table).suffix.lower() not in _FORMATS:
        raise UsageError(f"{args.table}: give a .csv or .parquet file")
    for path in (args.table, args.output):
        if Path(path).suffix.lower() == ".parquet":
            _need("pyarrow")
    if args.plot is not None:
        _need("matplotlib")


def _need(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingDependencyError(f"{module} is not installed; pip install {module}")


def _ORIGIN() -> Any:  # noqa: N802
    import pandas as pd

    return pd.Timestamp(2000, 1, 1)


def _table(args: argparse.Namespace) -> tuple[pd.DataFrame, tuple[str, str, str]]:
    """The table and the names of its id, timestamp and target columns; made up where the file has none."""
    frame = _read(args.table)
    if not len(frame):
        raise UsageError(f"{args.table}: has no rows")
    identity = _column(frame, args, "id_column", _IDS)
    time = _column(frame, args, "timestamp_column", _TIMES)
    target = _column(frame, args, "target", _TARGETS)
    if target is None:
        numeric = [name for name in frame.select_dtypes("number").columns if name not in (identity, time)]
        if len(numeric) != 1:
            raise UsageError(
                f"{args.table}: which column shall be forecast? Give --target, one of: "
                f"{', '.join(map(str, frame.columns[:20]))}"
            )
        target = numeric[0]
    if identity is None:
        identity = _SERIES
        frame = frame.assign(**{identity: target})
    if time is None:
        import pandas as pd

        time = _STEP  # rows are one step apart; calendar days stand for them on the way
        count = frame.groupby(identity, sort=False).cumcount()
        frame = frame.assign(**{time: _ORIGIN() + pd.to_timedelta(count, unit="D")})
    return frame, (identity, time, target)


def _column(frame: pd.DataFrame, args: argparse.Namespace, flag: str, usual: Sequence[str]) -> str | None:
    name = getattr(args, flag)
    if name is None:
        return next((known for known in usual if known in frame.columns), None)
    if name not in frame.columns:
        raise UsageError(
            f"--{flag.replace('_', '-')} {name}: no such column in {args.table}; it has: "
            f"{', '.join(map(str, frame.columns[:20]))}"
        )
    return str(name)


def _read(path: str) -> pd.DataFrame:
    import pandas as pd

    read = pd.read_csv if Path(path).suffix.lower() == ".csv" else pd.read_parquet
    try:
        frame: pd.DataFrame = read(path)
    except MemoryError:
        raise
    except Exception as error:  # pandas, pyarrow and the codecs have no common base class
        reason = first_line(error)
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    return frame


def _write(file: OutputFile, frame: pd.DataFrame) -> None:
    def save(beside: Path) -> None:
        if file.path.suffix.lower() == ".csv":
            frame.to_csv(beside, index=False)
        else:
            frame.to_parquet(beside, index=False)

    file.write(save)


def _draw(
    file: OutputFile,
    frame: pd.DataFrame,
    found: pd.DataFrame,
    names: tuple[str, str, str],
    levels: Sequence[float],
) -> None:
    from tsmerge_export.pipelines.plot import figure

    picture = figure(frame, found, names, levels)
    file.write(lambda beside: picture.savefig(beside, format=file.path.suffix[1:].lower(), dpi=150))
