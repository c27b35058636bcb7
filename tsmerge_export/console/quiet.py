"""Keep what libraries log off the user's terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Let a library's logger say nothing below an error within the block.

    Args:
        library: the logger's name, such as ``transformers``. It holds for the loggers below, unless those have a level
            of their own.
    """
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def no_logging() -> Iterator[None]:
    """Let nobody log below a critical error within the block, and take no handler or level over from it.

    For libraries that log through the root logger, or set it up when they are imported.
    """
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
