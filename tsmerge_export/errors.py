"""Errors a user can cause, each with the exit code that the command line returns for it.

Every message is one line: it names the file, flag or node, and says what to do. The command line prints the
message behind ``error: `` and never a traceback; from Python the same exceptions are raised.
"""

from __future__ import annotations

from typing import Any


class TsmergeError(Exception):
    """Base class of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class VerdictError(TsmergeError):
    """A verdict (parity) failed: the artefact does not compute what the eager model computes.

    ``manifest`` is that of the bundle that was not written, with its verdicts; None where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, manifest: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.manifest = manifest


class UsageError(TsmergeError, ValueError):
    """A wrong flag, argument or file: the user can mend it."""

    exit_code = 2


class UnsupportedError(TsmergeError):
    """A model, operator or runtime feature that this version cannot handle."""

    exit_code = 3


class MissingDependencyError(TsmergeError, ImportError):
    """An optional package or tool is not installed."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """What a foreign error says, as part of a message of one line: its first line, else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
