"""`--help` and `--version`; every help ends with commands that parse."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys

import pytest

from tests.cli.said import Capture
from tsmerge_export.cli import main, main_export
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.examples import EXAMPLES
from tsmerge_export.cli.parser import export_parser, tsmerge_parser


def test_help_and_version(capsys: Capture) -> None:
    assert main_export(["--help"]) == 0
    text = capsys.readouterr().out
    for flag in (
        "--merge", "--k", "--ratio", "--r", "--threshold", "--similarity", "--margin", "--alpha", "--energy",
        "--prune-share", "--min-tokens", "--layers", "--positions", "--causal", "--protect-newest",
        "--output", "--opset", "--data",
        "--json", "--atol", "--rtol", "--threads", "--trust-remote-code", "--force", "--inline", "--family", "--config",
    ):  # fmt: skip
        assert flag in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tsmerge-export ")


@pytest.mark.parametrize("command", [None, *EXAMPLES])
def test_every_help_ends_with_commands_that_parse(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str | None
) -> None:
    """As they are printed, on 80 columns; ``None`` is ``tsmerge-export``."""
    monkeypatch.setenv("COLUMNS", "80")
    call = main_export if command is None else main
    assert call([*([command] if command else []), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    lines = text.partition("\nexamples:\n")[2].splitlines()
    assert 1 <= len(lines) <= 2
    for line in lines:
        name, *words = shlex.split(line.partition("<")[0])
        assert name == ("tsmerge-export" if command is None else "tsmerge")
        if command:
            assert words[0] == command
        parser = export_parser() if command is None else tsmerge_parser()
        args = parser.parse_args(words)
        assert callable(args.run)
        # What can be read without the files makes sense too.
        if hasattr(args, "merge"):
            merge_config(args)


def test_every_command_has_examples() -> None:
    (commands,) = (a for a in tsmerge_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert {"", *commands.choices} == set(EXAMPLES)


def test_flags_are_read_with_the_standard_library_alone() -> None:
    code = "import sys; import tsmerge_export.cli.parser; print(*{'numpy', 'onnx', 'rich'} & {*sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "\n"
    )
