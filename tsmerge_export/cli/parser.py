"""Flags. Parsing needs only the standard library."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from tsmerge_export.cli.examples import add_examples
from tsmerge_export.cli.merging import add_merging, add_plugged
from tsmerge_export.cli.model import add_graph_options, add_model, add_model_options
from tsmerge_export.cli.precision import add_precision_options
from tsmerge_export.cli.providers import add_provider_options
from tsmerge_export.cli.readers import levels, targets, tolerance, whole
from tsmerge_export.cli.tables import FILES, add_table_options
from tsmerge_export.cli.target import add_target_options
from tsmerge_export.errors import UsageError

_EXPORT_HELP = "export a model with token merging as a verified ONNX bundle"
_VALIDATE_HELP = "repeat the verdicts of a bundle against its model"
_FORECAST_HELP = "forecast the series of a table with a bundle"
_INSPECT_HELP = "show where a bundle or an ONNX file merges, and what that saves"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, with the flags of the plug-in that the arguments name."""
        add_plugged(self, sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Prints the version; read from the installed package only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from tsmerge_export.version import version

        print(f"tsmerge-export {version()}")
        parser.exit()


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("verdicts")
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"series for merge cost and speed: {FILES}; default: a sample series",
    )
    group.add_argument(
        "--original",
        metavar="MODEL",
        help="compare merge cost and speed with this model, unmerged: the one that the weights were distilled from; "
        "default: MODEL itself, unmerged",
    )
    group.add_argument(
        "--atol", type=tolerance(0.1), metavar="X", help="absolute tolerance, of the output's scale"
    )
    group.add_argument(
        "--rtol", type=tolerance(0.1), metavar="X", help="relative tolerance; must stay below 0.1"
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads of the runtime; default: its choice"
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of generated inputs; default: 0"
    )
    group.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    add_table_options(parser, "--data")


def _fill_export(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_merging(parser)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", help="bundle to write; default: <model>-<method>")
    group.add_argument("--opset", type=whole(1), metavar="N", help="ONNX operator set; default: 18")
    group.add_argument(
        "--inline",
        action="store_true",
        help="write the merge functions inlined (for runtimes that do not expand them)",
    )
    group.add_argument("--force", action="store_true", help="replace an existing bundle")
    add_precision_options(parser)
    add_target_options(parser)
    add_provider_options(parser, engines=True)
    add_model_options(parser)
    add_graph_options(parser)
    _add_check_options(parser)
    parser.set_defaults(run=_run_export)


def _fill_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    add_model(parser)
    add_model_options(parser)
    _add_check_options(parser)
    add_provider_options(parser)
    parser.add_argument(
        "--inputs", metavar="FILE", help=".npz with an example of every input of an ONNX file"
    )
    parser.set_defaults(run=_run_validate)


def _fill_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="FILE|DIR", help="an ONNX file or a bundle's folder")
    parser.add_argument(
        "--batch", type=whole(1), default=1, metavar="N", help="batch to count at; default: 1"
    )
    parser.add_argument(
        "--length",
        type=whole(1),
        metavar="N",
        help="length to count at; default: 512, or the next lower power of two that the file runs at",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the findings as JSON")
    parser.set_defaults(run=_run_inspect)


def _fill_forecast(parser: argparse.ArgumentParser) -> None:
    # -h is the horizon here, as the statistics world has it.
    parser.add_argument("--help", action="help", help="show this help message and exit")
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    parser.add_argument("table", metavar="TABLE", help=f"the series: {FILES}")
    parser.add_argument(
        "-o", "--output", metavar="FILE", required=True, help=".csv or .parquet file to write; - for stdout"
    )
    parser.add_argument(
        "-h",
        "--prediction-length",
        type=whole(1),
        metavar="N",
        help="steps to forecast; default: the model's own",
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="also draw history, forecast and bands (.png, .svg, .pdf)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_table_options(parser, "TABLE")
    group = parser.add_argument_group("forecast")
    group.add_argument(
        "--quantiles",
        type=levels,
        default=tuple(i / 10 for i in range(1, 10)),
        metavar="Q,Q,...",
        help="levels from 0 to 1; default: 0.1 to 0.9",
    )
    group.add_argument(
        "--future",
        metavar="FILE",
        help="covariates whose future is known, a row for each series and step of the horizon, columns named as in "
        "TABLE (Chronos-2; the further columns of a long TABLE are covariates)",
    )
    group.add_argument(
        "--targets",
        type=targets,
        metavar="NAME,NAME",
        help="columns that are forecast together (Chronos-2); in a table without ids all else is a covariate",
    )
    group.add_argument(
        "--cross-learning",
        action="store_true",
        help="series inform each other: they are forecast as one group (Chronos-2)",
    )
    group.add_argument(
        "--batch-size",
        type=whole(1),
        metavar="N",
        help="with --cross-learning: so many series, covariates counted, make a group; default: 256",
    )
    group.add_argument(
        "--num-samples", type=whole(1), metavar="N", help="sample paths; default: the model's own"
    )
    group.add_argument(
        "--ratio",
        metavar="R",
        help="of a bundle exported with --ratio runtime: the share of the tokens that each layer removes, 0 to 1/2; "
        "default: the bundle's",
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of the sampling; default: 0"
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads of the runtime; default: its choice"
    )
    add_provider_options(parser, bundles=True)
    parser.set_defaults(run=_run_forecast)


def _run_forecast(args: argparse.Namespace) -> int:
    from tsmerge_export.cli.forecast import forecast

    return forecast(args)


def _run_export(args: argparse.Namespace) -> int:
    from tsmerge_export.cli.commands import export

    return export(args)


def _run_validate(args: argparse.Namespace) -> int:
    from tsmerge_export.cli.commands import validate

    return validate(args)


def _run_inspect(args: argparse.Namespace) -> int:
    from tsmerge_export.cli.commands import inspect

    return inspect(args)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def export_parser() -> argparse.ArgumentParser:
    """The parser of ``tsmerge-export``."""
    parser = _Parser(prog="tsmerge-export", description=_sentence(_EXPORT_HELP))
    add_examples(parser, "export")
    _add_version(parser)
    _fill_export(parser)
    return parser


def tsmerge_parser() -> argparse.ArgumentParser:
    """The parser of ``tsmerge``."""
    from tsmerge_export.cli import (
        advise,
        bench,
        compress,
        distill,
        families,
        lowpass,
        ort_format,
        triton,
        tune,
    )

    parser = _Parser(prog="tsmerge", description="Token merging in time-series models, exported and proved.")
    add_examples(parser, "")
    _add_version(parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, text, fill in (
        ("export", _EXPORT_HELP, _fill_export),
        ("validate", _VALIDATE_HELP, _fill_validate),
        ("inspect", _INSPECT_HELP, _fill_inspect),
        ("bench", bench.HELP, bench.fill),
        ("tune", tune.HELP, tune.fill),
        ("distill", distill.HELP, distill.fill),
        ("compress", compress.HELP, compress.fill),
        ("advise", advise.HELP, advise.fill),
        ("lowpass", lowpass.HELP, lowpass.fill),
        ("forecast", _FORECAST_HELP, _fill_forecast),
        ("ort", ort_format.HELP, ort_format.fill),
        ("triton", triton.HELP, triton.fill),
        ("families", families.HELP, families.fill),
    ):
        own_help = fill is _fill_forecast
        one = commands.add_parser(name, help=text, description=_sentence(text), add_help=not own_help)
        add_examples(one, name)
        fill(one)
    return parser
