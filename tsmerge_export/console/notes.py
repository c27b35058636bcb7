"""Notes: what a user should know though nothing failed. A warning in Python; on the command line a line on stderr."""

from __future__ import annotations

import warnings


class Note(UserWarning):
    """Something that the caller should know, not an error. The command line prints it behind ``note: ``."""


def note(text: str, above: int = 0) -> None:
    """Tell the user one sentence.

    Args:
        above: how many functions further up than the caller's caller the sentence is about.
    """
    warnings.warn(text, Note, stacklevel=3 + above)
