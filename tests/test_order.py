"""The order in which the files of tests run."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LONGEST


def test_what_runs_first_is_there() -> None:
    here = Path(__file__).parent
    assert [name for name in LONGEST if not (here / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
