"""Work on files from elsewhere in a process of its own, with limits: what it does to itself does not reach the user.

Torch and ONNX Runtime are large programs in C++ that were not written for hostile input: a file may hang them, crash
them, or take all memory. A child may do all of that. It answers with data alone, JSON lines and files in a folder of
the parent's, and its own output goes nowhere. It dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tsmerge_export.errors import (
    MissingDependencyError,
    TsmergeError,
    UnsupportedError,
    UsageError,
    VerdictError,
)

Answer = dict[str, Any]
Handler = Callable[[dict[str, Any]], Answer]
#: Seconds that one request may take; the environment variable TSMERGE_MAX_SECONDS overrides it.
SECONDS = 300.0
_GIB = 2**30
_MAX_ANSWER = 64 * 2**20
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_KINDS: dict[str, type[TsmergeError]] = {
    kind.__name__: kind for kind in (UsageError, UnsupportedError, VerdictError, MissingDependencyError)
}

#: True in a process that is itself watched over: tasks then run in it.
inside = False


@dataclass(frozen=True)
class Limits:
    """Of a child. ``seconds``: per request, wall clock. ``memory``: bytes of data. ``output``: bytes of one file."""

    seconds: float
    memory: int
    output: int

    @classmethod
    def for_file(cls, size: int) -> Limits:
        """For work on a model of ``size`` bytes, of which several copies may be in memory at a time.

        Raises:
            UsageError: TSMERGE_MAX_SECONDS is not a number of seconds.
        """
        return cls(seconds_allowed(), 4 * _GIB + 8 * size, _GIB + 8 * size)


def seconds_allowed() -> float:
    """Wall-clock seconds for one piece of work on a file from elsewhere.

    Raises:
        UsageError: TSMERGE_MAX_SECONDS is not a number of seconds.
    """
    text = os.environ.get("TSMERGE_MAX_SECONDS", str(SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"TSMERGE_MAX_SECONDS={text} is not a number of seconds")
    return seconds


class Ended(Exception):
    """The child gives no answer (any more); the message says why, without a subject."""


class LineProcess:
    """A Python process that answers every line with one JSON line.

    It finds the modules that this process finds; not those in the current folder, which may be a downloaded model's.

    Args:
        code: what it runs, one line.
    """

    def __init__(self, code: str) -> None:
        root = str(Path(__file__).parents[2])
        path = list(dict.fromkeys([*(entry for entry in sys.path if entry), root]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{code}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._buffer, self._killed = b"", False

    def ask(self, line: str, seconds: float) -> Answer:
        """Send a line and wait for the answer.

        Raises:
            Ended: none came in time, or the process ended; it is gone then.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
            text = self._line(seconds)
        except (BrokenPipeError, ValueError):  # it is gone; or was ended before, and its pipes closed
            text = b""
        except BaseException:
            self.kill()
            raise
        if not text:
            code = self._process.wait()
            self.kill()
            raise Ended(f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.kill()
            raise Ended("gave an answer that cannot be read")
        return answer

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = end - time.monotonic()
                if left <= 0:
                    raise Ended(f"gave no answer in {seconds:.0f} s")
                if not selector.select(left):
                    continue
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    return b""
                self._buffer += part
                if len(self._buffer) > _MAX_ANSWER:
                    raise Ended("gave an answer that is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def kill(self) -> None:
        """End the process and all that it started, whatever they do. Once: numbers of processes are used again."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Child:
    """Runs a task; a context manager, whose process ends with the block.

    Args:
        task: ``module:function``; the function takes a request (a dict) and returns the answer (a dict).
        source: what the user gave, for messages.
        limits: see :class:`Limits`.
    """

    def __init__(self, task: str, source: str, limits: Limits) -> None:
        self._task, self._source, self._limits = task, source, limits
        self._process: LineProcess | None = None

    def __enter__(self) -> Child:
        if not inside:
            order = {"task": self._task, "limits": asdict(self._limits)}
            self._process = LineProcess(
                f"from tsmerge_export.untrusted import isolated; isolated.main({order!r})"
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """Run the task on one request.

        Raises:
            UnsupportedError: it took too long, too much memory, or crashed.
            UsageError, UnsupportedError, VerdictError, MissingDependencyError: what the task itself raised.
        """
        if self._process is None:
            return _handler(self._task)(dict(request))
        try:
            answer = self._process.ask(json.dumps(request), self._limits.seconds)
        except Ended as error:
            hint = "; TSMERGE_MAX_SECONDS gives it more time" if "no answer" in str(error) else ""
            raise UnsupportedError(
                f"{self._source}: cannot be worked on: the process that opened it {error}{hint}"
            ) from None
        if "error" in answer:
            kind = _KINDS.get(str(answer["error"]), UnsupportedError)
            message = " ".join(str(answer.get("message", "")).split())[:1000]
            raise kind(message if self._source in message else f"{self._source}: {message}")
        return answer


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Let what takes more memory than there is fail, instead of the process being killed for it. Linux alone."""
    data, free = _status("self/status", "VmData"), _status("meminfo", "MemAvailable")
    if not data or not free:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = data + free
    soft = most if before[0] == resource.RLIM_INFINITY else min(most, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _status(file: str, key: str) -> int:
    """Bytes that the kernel says; 0 where it says nothing."""
    try:
        for line in Path("/proc", file).read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


def _handler(task: str) -> Handler:
    module, _, name = task.partition(":")
    found: Handler = getattr(importlib.import_module(module), name)
    return found


def own_channel() -> IO[str]:
    """Where a child answers: its stdout, which from now on nobody else writes to. Libraries print there."""
    channel = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    return channel


def main(order: dict[str, Any]) -> None:
    """The child: one JSON line for every request on stdin, until it is closed."""
    global inside
    inside = True
    channel = own_channel()
    _limit(Limits(**order["limits"]))
    handler: Handler | None = None
    for line in sys.stdin:
        try:
            handler = handler or _handler(order["task"])
            answer = handler(json.loads(line))
        except TsmergeError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except MemoryError:
            answer = {"error": "UnsupportedError", "message": "needs more memory than it may have"}
        except Exception as error:  # whatever a library raises over a hostile file is about that file
            message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            answer = {"error": "UnsupportedError", "message": message}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


def die_with_parent() -> None:
    """Let the kernel end this process once the thread that started it is gone. Linux alone; elsewhere nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(limits: Limits) -> None:
    die_with_parent()
    # RLIMIT_AS counts what torch and ONNX Runtime reserve and never use; RLIMIT_DATA what they can write to.
    wanted = {
        resource.RLIMIT_DATA: limits.memory,
        resource.RLIMIT_FSIZE: limits.output,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: int(limits.seconds * max(1, os.cpu_count() or 1)) + 60,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, hard))
