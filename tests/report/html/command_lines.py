"""Command lines, read and run as the program does."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

from tsmerge_export.bundle import Bundle
from tsmerge_export.cli import main, main_export
from tsmerge_export.cli.parser import export_parser, tsmerge_parser
from tsmerge_export.report.html.commands import commands


def parsed(command: str) -> Any:
    """What the real parser makes of a command line."""
    program, *words = shlex.split(command)
    return {"tsmerge-export": export_parser, "tsmerge": tsmerge_parser}[program]().parse_args(words)


def run_as_printed(bundle: Path) -> dict[str, int]:
    """Run the commands on a bundle's page one after the other, in the folder where it was made.

    The bundle is taken away first, so that the page makes it anew. Nothing is installed; a search gets less time.

    Returns:
        What each ended with.
    """
    given = commands(Bundle.open(bundle).read_report())
    shutil.rmtree(bundle)
    ended = {}
    for what, command in given:
        if command.startswith(("pip ", "export ")):
            continue
        program, *words = shlex.split(command)
        if words[0] == "tune":
            words += ["--budget", "20s"]
        ended[what] = {"tsmerge": main, "tsmerge-export": main_export}[program](words)
    return ended
