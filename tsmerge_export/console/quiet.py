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
