"""Flags. Parsing needs only the standard library."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn

from tsmerge_export.cli.examples import add_examples
from tsmerge_export.cli.providers import add_provider_options
from tsmerge_export.cli.tables import FILES, add_table_options
from tsmerge_export.errors import UsageError

_EXPORT_HELP = "export a model with token merging as a verified ONNX bundle"
_VALIDATE_HELP = "repeat the verdicts of a bundle against its model"
_FORECAST_HELP = "forecast the series of a table with a bundle"
_INSPECT_HELP = "show where a bundle or an ONNX file merges, and what that saves"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours: one line, exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


class _Version(argparse.Action):
    """Prints the version; read from the installed package only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from tsmerge_export.version import version

        print(f"tsmerge-export {version()}")
        parser.exit()


def whole(least: int) -> Callable[[str], int]:
    """Type of a flag: a whole number of at least ``least``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return value

    return parse


def names(text: str) -> tuple[str, ...]:
    """Type of ``--column``: names with commas between them."""
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no column")
    return found


def _tolerance(limit: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < limit:  # NaN fails too
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to below {limit:g}")
        return value

    return parse


def _layers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layer indices such as 0,1,2") from None


def _levels(text: str) -> tuple[float, ...]:
    try:
        levels = tuple(float(part) for part in text.split(","))
    except ValueError:
        levels = (math.nan,)
    if not all(0 <= level <= 1 for level in levels):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of levels from 0 to 1 such as 0.1,0.5,0.9")
    return levels


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder with config.json and safetensors, hub id or .pt file; or any .onnx or .pt2 file",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The flags of loading a model."""
    group = parser.add_argument_group("model")
    group.add_argument("--family", metavar="NAME", help="model family; default: found from the config")
    group.add_argument(
        "--config", metavar="FILE", help="config.json for a .pt file that holds a bare state_dict"
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="accept a config that refers to code of its own (auto_map)",
    )


def add_graph_options(parser: argparse.ArgumentParser) -> None:
    """The flags of what a file does not tell about its tokens."""
    group = parser.add_argument_group("graph", "for .onnx and .pt2 files")
    group.add_argument(
        "--token-mask",
        metavar="NAME",
        help="input [batch, tokens] that is 0 where a token is padding; default: attention_mask, if it fits; or none",
    )
    group.add_argument(
        "--protect-first", type=whole(0), default=0, metavar="N", help="special tokens in front, such as CLS"
    )
    group.add_argument(
        "--protect-last", type=whole(0), default=0, metavar="N", help="special tokens at the end"
    )
    group.add_argument("--inputs", metavar="FILE", help=".npz with an example of every input")


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("verdicts")
    group.add_argument(
        "--data",
        metavar="FILE",
        help=f"series for merge cost and speed: {FILES}; default: a sample series",
    )
    group.add_argument(
        "--atol", type=_tolerance(0.1), metavar="X", help="absolute tolerance, of the output's scale"
    )
    group.add_argument(
        "--rtol", type=_tolerance(0.1), metavar="X", help="relative tolerance; must stay below 0.1"
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads of the runtime; default: its choice"
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of generated inputs; default: 0"
    )
    group.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    add_table_options(parser, "--data")


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("runtime")
    group.add_argument(
        "--runtime",
        default="onnxruntime",
        metavar="NAME",
        help="onnxruntime (default), tensorrt or tensorrt-rtx",
    )
    group.add_argument(
        "--dtype",
        default="fp32",
        metavar="TYPE",
        help="of matrix products in TensorRT: fp32 (default), fp16 or bf16",
    )
    for which, what in (("min", "smallest"), ("opt", "usual"), ("max", "largest")):
        group.add_argument(
            f"--{which}-shapes",
            metavar="NAME:1x512,...",
            help=f"{what} input shapes of an engine",
        )
    group.add_argument(
        "--compute-capability", metavar="80,86,...", help="GPUs that a TensorRT-RTX engine is built for"
    )
    group.add_argument("--plugin", metavar="FILE", help="plugin library for TensorRT (libtsmerge_trt.so)")


def add_merging(parser: argparse.ArgumentParser) -> None:
    """The flags of a merge setting."""
    group = parser.add_argument_group("merging")
    group.add_argument(
        "--merge",
        metavar="METHOD",
        help="local, global, dynamic, pitome, ssm or none; default: local, or none where the family advises against it",
    )
    group.add_argument("--k", metavar="K", help="neighbourhood: 1, 2, ... or global; default: 1")
    group.add_argument(
        "--ratio",
        metavar="R",
        help="share of tokens to remove: 1/4, 0.25 or 25%%, or one for each layer: 1/2,1/4; default: auto, what the "
        "model's family says is safe",
    )
    group.add_argument(
        "--r", metavar="N", help="number of tokens to remove, or one for each layer, instead of --ratio"
    )
    group.add_argument(
        "--schedule",
        metavar="HOW",
        help="constant (default), or linear: twice the amount down to nothing by depth",
    )
    group.add_argument(
        "--threshold",
        metavar="S",
        help="dynamic: merge tokens more alike than this, -1 to 1, or one for each layer; default: 0.9",
    )
    group.add_argument(
        "--similarity",
        metavar="HOW",
        help="local, global, dynamic: cosine (default), l2 or dot; all from -1 to 1",
    )
    group.add_argument(
        "--margin",
        metavar="M",
        help="pitome: cosine from which tokens are alike, or one for each layer; default: 0.9 falling by depth",
    )
    group.add_argument("--alpha", metavar="A", help="pitome: weight of tokens that are not alike; default: 1")
    group.add_argument("--energy", metavar="HOW", help="pitome: elu (default) or gaussian")
    group.add_argument(
        "--prune-share",
        metavar="Q",
        help="ssm: share of the removed tokens that is pruned, not merged, 0 to 1; default: 1/2",
    )
    group.add_argument(
        "--residual-prune-share",
        metavar="Q",
        help="ssm with --metric hidden: the same for the residual; --prune-share is then for the hidden states",
    )
    group.add_argument("--min-tokens", type=whole(0), metavar="N", help="leave at least so many; default: 4")
    group.add_argument("--layers", type=_layers, metavar="I,J,...", help="layers to merge in; default: all")
    group.add_argument("--positions", metavar="HOW", help="gather (true distances, default) or compact")
    group.add_argument(
        "--causal",
        action="store_true",
        default=None,
        help="local or dynamic with --k 1, for decoders: no slot is read from a later token when tokens are unmerged",
    )
    group.add_argument(
        "--metric",
        metavar="WHAT",
        help="what is compared: x (the tokens, default), key (attention keys) or hidden (of a state-space block)",
    )
    group.add_argument(
        "--prop-attn",
        action="store_true",
        default=None,
        help="proportional attention: a merged token counts as often as its size",
    )


def _fill_export(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    add_merging(parser)
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", metavar="DIR", help="bundle to write; default: <model>-<method>")
    group.add_argument("--opset", type=whole(1), metavar="N", help="ONNX operator set; default: 18")
    group.add_argument(
        "--inline", action="store_true", help="write the merge functions inlined (for OpenVINO)"
    )
    group.add_argument("--force", action="store_true", help="replace an existing bundle")
    _add_target_options(parser)
    add_model_options(parser)
    add_graph_options(parser)
    _add_check_options(parser)
    parser.set_defaults(run=_run_export)


def _fill_validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="DIR", help="the bundle's folder")
    _add_model(parser)
    add_model_options(parser)
    _add_check_options(parser)
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
        type=_levels,
        default=tuple(i / 10 for i in range(1, 10)),
        metavar="Q,Q,...",
        help="levels from 0 to 1; default: 0.1 to 0.9",
    )
    group.add_argument(
        "--num-samples", type=whole(1), metavar="N", help="sample paths; default: the model's own"
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="seed of the sampling; default: 0"
    )
    group.add_argument(
        "--threads", type=whole(1), metavar="N", help="threads of the runtime; default: its choice"
    )
    add_provider_options(parser)
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


def export_parser() -> argparse.ArgumentParser:
    """The parser of ``tsmerge-export``."""
    parser = _Parser(prog="tsmerge-export", description=_EXPORT_HELP.capitalize() + ".")
    add_examples(parser, "export")
    _add_version(parser)
    _fill_export(parser)
    return parser


def tsmerge_parser() -> argparse.ArgumentParser:
    """The parser of ``tsmerge``."""
    from tsmerge_export.cli import advise, bench, families, lowpass, tune

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
        ("advise", advise.HELP, advise.fill),
        ("lowpass", lowpass.HELP, lowpass.fill),
        ("forecast", _FORECAST_HELP, _fill_forecast),
        ("families", families.HELP, families.fill),
    ):
        own_help = fill is _fill_forecast
        one = commands.add_parser(name, help=text, description=text.capitalize() + ".", add_help=not own_help)
        add_examples(one, name)
        fill(one)
    return parser
