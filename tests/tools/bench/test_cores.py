"""The distance between cores: a ratio, and the process keeps the cores it may use."""

import os

import pytest

from tsmerge_export.tools.bench import cores


def test_cores_of_the_process_are_as_before() -> None:
    if not hasattr(os, "sched_getaffinity"):
        assert cores.distance() is None
        return
    before = os.sched_getaffinity(0)
    found = cores.distance(rounds=3)
    assert os.sched_getaffinity(0) == before
    assert (found is None) == (len(before) < 2)
    assert found is None or 0.1 < found < 1000


def test_one_core_has_no_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: pytest.fail("must not move"), raising=False)
    assert cores.distance() is None


def test_a_core_that_is_refused_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        if not calls:
            calls.append(1)
            raise OSError("not permitted")

    calls: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert cores.distance() is None
