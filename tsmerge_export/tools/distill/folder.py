"""The folder that keeps a training between runs: that it is one of ours, and that one run at a time uses it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tsmerge_export.errors import UsageError
from tsmerge_export.files.lock import lock
from tsmerge_export.files.paths import real_path

_LOCK = "lock"
_STATES = ("train.safetensors", "control.safetensors")
_SUFFIX = ".distill-state"


def state_of(output: Path) -> Path:
    """Where the training of a checkpoint is kept until the checkpoint is there."""
    return output.with_name(f"{output.name}{_SUFFIX}")


def holds_state(folder: Path) -> bool:
    """Whether a training is kept there."""
    return any((folder / name).is_file() for name in _STATES)


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Own a state folder inside the ``with``; made if it is missing. It is removed at the end if it holds no state.

    Raises:
        UsageError: it holds what no distillation has written, is used by another run, or cannot be written.
    """
    check(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("ab")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written ({error.strerror}); give another -o") from None
    with file:
        if not lock(file):
            raise UsageError(f"{folder}: another run is training there; wait for it, or give another -o")
        try:
            yield
        finally:
            if not holds_state(folder):
                remove(folder)


def check(folder: Path) -> None:
    """Raises UsageError for a folder that holds what no distillation has written, or a file in its place."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: is in the way of the training's state; move it, or give another -o")
    if not folder.is_dir():
        return
    other = next((one.name for one in sorted(folder.iterdir()) if not _ours(one.name)), None)
    if other is not None:
        raise UsageError(
            f"{folder}: holds {other}, which no distillation has written; move it, or give another -o"
        )


def remove(folder: Path) -> None:
    """Remove a state folder, which holds nothing but what :func:`check` knows."""
    with contextlib.suppress(UsageError, OSError):
        check(folder)
        shutil.rmtree(real_path(folder))


def _ours(name: str) -> bool:
    """A state, the lock, or what a killed run has left of a state that it wrote."""
    return name in (*_STATES, _LOCK) or any(name.startswith(f".{state}.tmp-") for state in _STATES)
