"""Processes that say where they are, and conditions that come true: a test waits for these, never for time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Says so on stdout, once, when it comes to the place.
_CHILD = """
import os, sys
from tsmerge_export import cli
from tsmerge_export.console import progress

main, kind, name = sys.argv[1:4]
told = []

def at(event, args):
    if event == kind and args and os.path.basename(str(args[0])) == name and not told:
        told.append(os.write(1, b"here\\n"))

def telling(event, method):
    def told_of(self, *args):
        at(event, args)
        return method(self, *args)
    return told_of

sys.addaudithook(at)
progress.RichProgress.step = telling("step", progress.RichProgress.step)
progress.LateBar.update = telling("update", progress.LateBar.update)
sys.exit(getattr(cli, main)(sys.argv[4:]))
"""


def process_at(kind: str, name: str, main: str, arguments: Sequence[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, which has just come to a place. Its pipes hold what follows.

    Args:
        kind: ``import`` of a module (a process begins with many), ``open`` of a file, ``step`` of a command with steps,
            ``update``, a number of parts done, of one that has none. name: the module, file, step or number.
        main: of :mod:`tsmerge_export.cli`. arguments: of the command.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, main, kind, name, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A background job inherits that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    if process.stdout.readline() != "here\n":
        raise AssertionError(f"the command ended before {kind} {name}: {process.communicate()[1]}")
    return process


def until(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether a condition comes true in time. It is asked again and again, and nothing else is waited for."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
