"""The one place where errors become a line on stderr and an exit code."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.notes import Note
from tsmerge_export.errors import TsmergeError

DEBUG = "TSMERGE_DEBUG"  # set to 1: full tracebacks and the libraries' warnings
INTERRUPTED = 130  # 128 + SIGINT
TERMINATED = 143  # 128 + SIGTERM
_SILENT = logging.NullHandler()

_interrupted_by: list[
    int
] = []  # signals received; kept because a library may turn KeyboardInterrupt into another error
_again: list[threading.Timer] = []  # signals that came where nothing may be raised
_WAIT = 0.02  # seconds


def guarded(run: Callable[[], int]) -> int:
    """Run a command and map whatever it raises.

    Returns:
        0 ok, 1 a verdict failed (or a bug), 2 usage, 3 unsupported, 4 missing dependency, 130 and 143 for signals.
    """
    debug = os.environ.get(DEBUG, "") not in ("", "0")
    _interrupted_by.clear()
    before = _catch_signals()
    _quiet(debug)
    notes: dict[str, None] = {}
    shown = _collect(notes)
    try:
        try:
            code = run()
        except SystemExit as exit_:  # --help and --version
            code = exit_.code if isinstance(exit_.code, int) else 0
        raise_if_interrupted()
        _tell(notes)
        sys.stdout.flush()  # here, where a reader that is gone is no error; at the interpreter's end it is one
        return code
    except BaseException as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        if not isinstance(error, KeyboardInterrupt) and not _interrupted_by:
            _tell(notes)
        return _explain(error)
    finally:
        warnings.showwarning = shown
        while _again:
            _again.pop().cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _catch_signals() -> dict[int, Any]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt, so that temporary files are removed on both."""
    before: dict[int, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            current = signal.getsignal(number)
            if current is not signal.SIG_IGN:  # started in the background or under nohup: stays ignored
                before[number] = signal.signal(number, _on_signal)
        except ValueError:  # not the main thread
            break
    return before


def _on_signal(number: int, frame: FrameType | None) -> None:
    _interrupted_by.append(number)
    if not _in_native_code(frame):
        raise KeyboardInterrupt
    _again.append(threading.Timer(_WAIT, os.kill, (os.getpid(), number)))
    _again[-1].daemon = True
    _again[-1].start()


def _in_native_code(frame: FrameType | None) -> bool:
    """Whether a library written in C++ is being loaded: an exception through its start ends the process (terminate)."""
    while frame is not None:
        loading = frame.f_code.co_name in ("create_module", "exec_module")
        if loading and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal came whose exception was lost.

    Python drops what is raised inside a destructor or a weak reference's callback, and some libraries catch everything
    while they are imported.
    """
    if _interrupted_by:
        raise KeyboardInterrupt


def _quiet(debug: bool) -> None:
    """Keep warnings and chatter of the libraries away from the user, unless debugging."""
    if debug:
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(_SILENT)  # where no logger has a handler, Python writes to stderr
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _collect(notes: dict[str, None]) -> Any:
    """Keep the library's notes for the end, each once: a line in between would tear a progress bar.

    Returns:
        What showed warnings before.
    """
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Note):
            notes[str(message)] = None
        else:
            before(message, category, *where, **more)

    warnings.filterwarnings("always", category=Note)
    warnings.showwarning = show
    return before


def _tell(notes: dict[str, None]) -> None:
    for text in notes:
        print(f"note: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _explain(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt) or _interrupted_by:
        _say("interrupted")
        return TERMINATED if _interrupted_by and _interrupted_by[0] == signal.SIGTERM else INTERRUPTED
    if isinstance(error, TsmergeError):
        _say(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader of our output is gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("tsmerge_export"):
        _say(how_to_install(str(error.name)))
        return 4
    if isinstance(error, OSError) and error.strerror:
        _say(f"{error.filename or 'input/output'}: {error.strerror}")
        return 2
    if isinstance(error, MemoryError):
        _say("out of memory; try a smaller model, batch or length")
        return 1
    _say(f"unexpected {type(error).__name__}: {error}; this is a bug, {_keep_traceback(error)}")
    return 1


def _say(message: str) -> None:
    """One line on stderr, whatever the message holds: names from files may hold commands to the terminal."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(message.split()))
    print(f"error: {plain}", file=sys.stderr, flush=True)


def _keep_traceback(error: BaseException) -> str:
    """Write the traceback to a file and say where it is."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="tsmerge-bug-", suffix=".txt", delete=False) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return f"set {DEBUG}=1 to see its traceback"
    return f"its traceback is in {file.name}"
