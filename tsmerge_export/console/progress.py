"""Progress of a long command: what the worker calls, and how it is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

# Steps of an export in order; a step that is left out is simply never announced.
EXPORT_STEPS = (
    "load", "export", "rewrite", "lower", "quantise", "parity", "cost", "example", "precision", "engine", "bundle",
)  # fmt: skip
BENCH_STEPS = ("load", "export", "rewrite", "lower", "bench")
ADVISE_STEPS = ("load", "data", "export", "speed")
COMPRESS_STEPS = ("load", "prune", "cluster", "quantise", "test")
TUNE_STEPS = ("load", "search", "distill", "quantise", "test")
DISTILL_STEPS = ("load", "data", "train", "control", "test", "speed")
# A call that takes less shows no bar.
_LATE_SECONDS = 2.0
VALIDATE_STEPS = ("load", "export", "rewrite", "lower", "engine", "parity", "cost", "precision")


class Progress(Protocol):
    """What a long-running function calls to tell how far it is."""

    def step(self, name: str) -> None:
        """A step begins, and the one before is done."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` parts of the current step are finished."""


@runtime_checkable
class Below(Protocol):
    """A progress that has room for more under its bar."""

    def below(self, content: Any) -> None:
        """Show text, or something that rich can print."""


def below(progress: Progress, content: Any) -> None:
    """Show something under the bar of a progress that has room there."""
    if isinstance(progress, Below):
        progress.below(content)


class NoProgress:
    """Shows nothing."""

    def step(self, name: str) -> None:
        """Ignored."""

    def update(self, done: int, total: int) -> None:
        """Ignored."""


class Stopwatch:
    """Passes on what it is told, and notes how long each step took.

    Attributes:
        seconds: by step, in order of their first beginning; a step that comes several times is summed up. The step
            that runs is counted up to its last :meth:`stop` only.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}
        self._running: tuple[str, float] | None = None

    def step(self, name: str) -> None:
        """A step begins, and the one before is done."""
        self.stop()
        self._running = (name, time.monotonic())
        self._progress.step(name)

    def update(self, done: int, total: int) -> None:
        """Passed on."""
        self._progress.update(done, total)

    def below(self, content: Any) -> None:
        """Passed on."""
        below(self._progress, content)

    def stop(self) -> None:
        """The current step is done."""
        if self._running is not None:
            name, begin = self._running
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begin
        self._running = None


class RichProgress:
    """A bar over the steps on stderr. Shows nothing where stderr is no terminal, so that logs hold only results.

    Use as a context manager; the bar is gone when it ends.

    Args:
        steps: names in order.
        check: called at every sign of progress; may raise, to end the work there.
    """

    def __init__(self, steps: Sequence[str], check: Callable[[], None] | None = None) -> None:
        self._check = check or (lambda: None)
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._steps = list(steps)
        console = Console(stderr=True)
        columns: list[Any] = [
            TextColumn("{task.description:<8}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
        ]
        self._bar = Bar(*columns, TimeElapsedColumn(), auto_refresh=False, disable=not console.is_terminal)
        self._task = self._bar.add_task("start", total=len(self._steps))
        self._below: Any = ""
        self._live = Live(
            get_renderable=lambda: Group(self._bar, self._below), console=console, transient=True,
            redirect_stdout=False, redirect_stderr=False, refresh_per_second=8,
        )  # fmt: skip
        self._shown = console.is_terminal

    def __enter__(self) -> RichProgress:
        if self._shown:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._live.stop()
        sys.stderr.flush()

    def step(self, name: str) -> None:
        """Announce a step; unknown names are appended."""
        self._check()
        if name not in self._steps:
            self._steps.append(name)
            self._bar.update(self._task, total=len(self._steps))
        self._bar.update(self._task, description=name, completed=self._steps.index(name))

    def below(self, content: Any) -> None:
        """Show something rich can print (a table) under the bar."""
        self._below = content

    def update(self, done: int, total: int) -> None:
        """Move the bar within the current step."""
        self._check()
        name = str(self._bar.tasks[0].description)
        base = self._steps.index(name) if name in self._steps else 0
        self._bar.update(self._task, completed=base + min(1.0, done / max(1, total)))


class LateBar:
    """A bar for calls that may be short: it appears after two seconds of work, on stderr if that is a terminal.

    Use it as a :class:`Progress` whose ``update`` ends with ``done == total``, which takes it away; so does
    :meth:`close`, for work that an exception ended.
    """

    def __init__(self, name: str, check: Callable[[], None] | None = None) -> None:
        self._name, self._check = name, check or (lambda: None)
        self._begin: float | None = None
        self._bar: RichProgress | None = None

    def step(self, name: str) -> None:
        """Names what follows."""
        self._name = name

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` parts of the call are finished."""
        self._check()
        now = time.monotonic()
        if self._begin is None:
            self._begin = now
        if self._bar is None and now - self._begin > _LATE_SECONDS and sys.stderr.isatty():
            self._bar = RichProgress([self._name]).__enter__()
            self._bar.step(self._name)
        if self._bar is not None:
            self._bar.update(done, total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = self._begin = None
