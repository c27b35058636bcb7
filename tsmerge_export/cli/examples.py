"""Commands to start from, at the end of every ``--help``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

_HEADING = "examples:"

#: By command, without its name. The first is what most people want.
EXAMPLES: Mapping[str, Sequence[str]] = {
    "": ("export amazon/chronos-bolt-tiny -o bolt", "forecast bolt data.csv -h 64 -o forecast.csv"),
    "export": (
        "amazon/chronos-bolt-tiny --ratio 1/10 --data data.csv -o bolt",
        "model.onnx --ratio 1/4 --protect-first 1 -o merged",
    ),
    "validate": ("bolt amazon/chronos-bolt-tiny --data data.csv",),
    "inspect": ("bolt", "model.onnx --batch 8 --length 512"),
    "bench": (
        "bolt --batch 1,8 --length 128,512",
        "amazon/chronos-bolt-tiny --ratio 1/4 --against eager,openvino",
    ),
    "tune": (
        "amazon/chronos-bolt-tiny --data data.csv --max-increase 3%",
        "bolt-model t5-model --data data.csv --budget 1h --json tried.json",
    ),
    "distill": (
        "amazon/chronos-bolt-tiny --ratio 1/2 --data data.csv -o half",
        "amazon/chronos-bolt-tiny --elastic 0,1/4,1/2 -o elastic",
    ),
    "compress": (
        "amazon/chronos-bolt-tiny --data data.csv -o small",
        "half --data data.csv --steps prune,quantise -o smaller",
    ),
    "advise": ("amazon/chronos-bolt-tiny --data data.csv --plot advice.png",),
    "lowpass": ("--plot spectra.png", "--data data.csv --column load --ratio 1/4 --steps 4"),
    "forecast": (
        "bolt data.csv -h 64 -o forecast.csv --plot forecast.png",
        "bolt - -o - --target sales < data.csv > forecast.csv",
    ),
    "ort": ("bolt -o bolt-ort",),
    "triton": ("bolt -o repository --threads 1", "bolt -o repository --gpu --instances 2 --force"),
    "families": ("--json families.json",),
}


class HelpFormatter(argparse.HelpFormatter):
    """Leaves the lines of the examples as they are, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_HEADING):
            return "\n".join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


def add_examples(parser: argparse.ArgumentParser, command: str) -> None:
    """Show a command's examples under its flags, by the name that it was called by."""
    parser.formatter_class = HelpFormatter
    parser.epilog = "\n  ".join([_HEADING, *(f"{parser.prog} {words}" for words in EXAMPLES[command])])
