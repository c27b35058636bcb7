"""Progress of a long command: what the worker calls, and how it is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol

# Steps of an export in order; a step that is left out is simply never announced.
EXPORT_STEPS = ("load", "export", "rewrite", "lower", "parity", "cost", "engine", "bundle")
VALIDATE_STEPS = ("load", "export", "rewrite", "lower", "parity", "cost")


class Progress(Protocol):
    """What a long-running function calls to tell how far it is."""

    def step(self, name: str) -> None:
        """A step begins, and the one before is done."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` parts of the current step are finished."""


class NoProgress:
    """Shows nothing."""

    def step(self, name: str) -> None:
        """Ignored."""

    def update(self, done: int, total: int) -> None:
        """Ignored."""


class RichProgress:
    """A bar over the steps on stderr. Shows nothing where stderr is no terminal, so that logs hold only results.

    Use as a context manager; the bar is gone when it ends.

    Args:
        steps: names in order.
        check: called at every sign of progress; may raise, to end the work there.
    """

    def __init__(self, steps: Sequence[str], check: Callable[[], None] | None = None) -> None:
        self._check = check or (lambda: None)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._steps = list(steps)
        console = Console(stderr=True)
        columns: list[Any] = [
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
        ]
        self._bar = Bar(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._task = self._bar.add_task("start", total=len(self._steps))

    def __enter__(self) -> RichProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        sys.stderr.flush()

    def step(self, name: str) -> None:
        """Announce a step; unknown names are appended."""
        self._check()
        if name not in self._steps:
            self._steps.append(name)
            self._bar.update(self._task, total=len(self._steps))
        self._bar.update(self._task, description=name, completed=self._steps.index(name))

    def update(self, done: int, total: int) -> None:
        """Move the bar within the current step."""
        self._check()
        name = str(self._bar.tasks[0].description)
        base = self._steps.index(name) if name in self._steps else 0
        self._bar.update(self._task, completed=base + min(1.0, done / max(1, total)))
