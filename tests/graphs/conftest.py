"""Fixtures of all tests of graphs from files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.quick import untimed_verdicts


@pytest.fixture(scope="module", autouse=True)
def little_time() -> Iterator[None]:
    """Speed is not what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        untimed_verdicts(patch)
        yield
