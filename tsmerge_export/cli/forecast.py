"""``tsmerge forecast``: a table in, forecasts with quantiles out, a picture of them if asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.files import check_apart
from tsmerge_export.cli.handler import raise_if_interrupted
from tsmerge_export.cli.providers import provider_options
from tsmerge_export.cli.tables import table_options
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.notes import note
from tsmerge_export.errors import MissingDependencyError, UsageError
from tsmerge_export.files.output_file import OutputFile
from tsmerge_export.tables.source import STDIN

if TYPE_CHECKING:
    import pandas as pd

    from tsmerge_export.forecast.base import Forecaster
    from tsmerge_export.forecast.frame import Panel
    from tsmerge_export.tables.read import Long

_FORMATS = (".csv", ".parquet")
_STDOUT = "-"


def forecast(args: argparse.Namespace) -> int:
    """``tsmerge forecast DIR TABLE``. Returns 0."""
    how, where = table_options(args), provider_options(args)
    _check_paths(args)
    from tsmerge_export.console.progress import LateBar
    from tsmerge_export.forecast import frame, pipeline
    from tsmerge_export.forecast.inputs import prediction_length
    from tsmerge_export.settings.run_time import read
    from tsmerge_export.tables.known import read_known
    from tsmerge_export.tables.read import read_long
    from tsmerge_export.tables.source import open_source

    bar = LateBar("forecast", raise_if_interrupted)
    ratio = None if args.ratio is None else read(args.ratio, "--ratio")
    model = pipeline(args.bundle, threads=args.threads, progress=bar, **where).at(ratio)
    options: dict[str, Any] = {"seed": args.seed, **_group_options(args, model)}
    if args.num_samples is not None:
        if model.forecast_type != "samples":
            raise UsageError(
                f"--num-samples has no effect: {args.bundle} gives quantiles, it draws no samples"
            )
        options["num_samples"] = args.num_samples
    steps = prediction_length(args.prediction_length, model.model_prediction_length, limit=False)
    table = read_long(
        open_source(args.table), how, targets=args.targets or (), covariates=model.takes_covariates
    )
    columns = frame.Columns(table.id, table.time, table.targets if table.more else table.target)
    saying = frame.Saying(f"{args.table}: ", "--freq", f"--future {args.future}: ")
    known = None
    if args.future is not None:
        if table.wide:
            raise UsageError(
                f"--future {args.future}: every column of {args.table} is a series; name what is forecast by --targets"
            )
        known = read_known(open_source(args.future, "--future"), how, table)
    panel = model.read_panel(table.frame, columns, steps, how.freq, True, saying, known)
    if panel.covariates:
        note(f"{args.table}: columns taken for covariates: {', '.join(map(repr, panel.covariates))}")
    found = model.predict_panel(_named(panel, table), steps, args.quantiles, **options)
    if args.plot is not None:
        _draw(args.plot, table, found, args.quantiles)
    _write(args.output, found)
    places = [
        "standard output" if path == _STDOUT else str(path) for path in (args.output, args.plot) if path
    ]
    said = f"{len(panel.ids)} series, {steps} steps each: {', '.join(places)}"
    print(said, file=sys.stderr if args.output == _STDOUT else sys.stdout, flush=True)
    return 0


def _group_options(args: argparse.Namespace, model: Forecaster) -> dict[str, Any]:
    """Arguments of flags about series that are forecast together; UsageError where the family does not."""
    given = (
        ("--future", args.future),
        ("--targets", args.targets),
        ("--cross-learning", args.cross_learning),
    )
    flag = next((flag for flag, value in (*given, ("--batch-size", args.batch_size)) if value), None)
    if flag is not None and not model.takes_covariates:
        raise UsageError(
            f"{flag} has no effect: {args.bundle} is a bundle of {model.bundle.contents.family}, which forecasts each "
            "series from its own values"
        )
    if args.batch_size is not None and not args.cross_learning:
        raise UsageError("--batch-size has no effect without --cross-learning; leave it out")
    if args.targets and args.target is not None:
        raise UsageError("--target and --targets both name what is forecast; give one of them")
    if args.future == args.table == STDIN:
        raise UsageError("--future -: stdin can be read once only; give a file")
    if not args.cross_learning:
        return {}
    return {"cross_learning": True, "batch_size": args.batch_size or 256}


def _named(panel: Panel, table: Long) -> Panel:
    """The series of a wide table are their own targets."""
    from dataclasses import replace

    return replace(panel, targets=[str(name) for name in panel.ids]) if table.wide else panel


def _check_paths(args: argparse.Namespace) -> None:
    """Fail on a wrong path before any work is done. Makes an :class:`OutputFile` of what is written."""
    from tsmerge_export.tables.source import check_suffix

    made: list[OutputFile] = []
    for flag, name, suffixes in (("-o", "output", _FORMATS), ("--plot", "plot", (".png", ".svg", ".pdf"))):
        path = getattr(args, name)
        if path is None or (name == "output" and path == _STDOUT):
            continue
        if Path(path).suffix.lower() not in suffixes:
            raise UsageError(f"{flag} {path}: give a file that ends in {', '.join(suffixes)}")
        file = OutputFile(flag, path)
        check_apart(args, file, made)
        if name == "output" and not args.force and not file.direct and os.path.lexists(path):
            raise UsageError(f"-o {path}: exists already; give --force to replace it, or another name")
        setattr(args, name, file)
        made.append(file)
    for flag, path in (("", args.table), ("--future ", args.future)):
        if path is not None:
            if path != STDIN and not Path(path).is_file():
                raise UsageError(f"{flag}{path}: no such file")
            check_suffix(path, f"{flag}{path}")
    for path in (args.table, args.output, args.future):
        if path is not None and Path(path).suffix.lower() == ".parquet":
            _need("pyarrow")
    if args.plot is not None:
        _need("matplotlib")


def _need(module: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingDependencyError(how_to_install(module))


def _write(file: OutputFile | str, frame: pd.DataFrame) -> None:
    if isinstance(file, str):  # standard output
        frame.to_csv(sys.stdout, index=False)
        return
    parquet = file.path.suffix.lower() == ".parquet"
    file.write(lambda beside: (frame.to_parquet if parquet else frame.to_csv)(beside, index=False))


def _draw(file: OutputFile, table: Long, found: pd.DataFrame, levels: Sequence[float]) -> None:
    from tsmerge_export.forecast import frame
    from tsmerge_export.forecast.plot import figure

    history = table.frame
    if table.time is None:
        history = history.assign(**{frame.STEP: history.groupby(table.id, sort=False).cumcount()})
    picture = figure(history, found, (table.id, table.time or frame.STEP), table.targets, levels)
    file.write(lambda beside: picture.savefig(beside, format=file.path.suffix[1:].lower(), dpi=150))
