"""Making things beside their place: whatever comes between, wherever a run is killed, nothing of another's is lost."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsmerge_export.files import atomic, beside
from tsmerge_export.files.beside import Beside, ChangedError, look, sweep

STEPS = 12  # looks and moves of one put: more than there are


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "content").write_text(text)


def visible(folder: Path) -> list[str]:
    """Everything under names that are not hidden: the texts that stand there."""
    return sorted(
        path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def replace(path: Path) -> None:
    seen = look(path)
    with Beside(path) as place:
        make(place.new, "new")
        (place.scratch / "waste").touch()
        place.put(seen)


def at_step(patch: Callable[[str, Any], None], step: int | None, act: Callable[[], None]) -> None:
    """Act before the given call of what `put` does to the file system and sees of it."""
    calls = itertools.count()

    def hooked(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if next(calls) == step:
                act()
            return real(*args)

        return call

    for name in ("look", "exchange", "move_new"):
        patch(name, hooked(getattr(beside, name)))


def swapless(patch: Callable[[str, Any], None], swap: bool) -> None:
    if not swap:
        patch("exchange", lambda first, second: False)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up."""


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_puts_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool, there: bool
) -> None:
    swapless(lambda name, value: monkeypatch.setattr(beside, name, value), swap)
    if there:
        make(tmp_path / "out", "old")
    replace(tmp_path / "out")
    assert visible(tmp_path) == ["new"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("comes", range(STEPS))
def test_another_thing_comes_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: int, there: bool, swap: bool
) -> None:
    """Its owner moves what stands there away and puts something of theirs there, at any moment."""
    path = tmp_path / "out"
    if there:
        make(path, "old")

    def patch(name: str, value: Any) -> None:
        monkeypatch.setattr(beside, name, value)

    came = []

    def interfere() -> None:
        came.append(True)
        if path.exists():
            path.rename(tmp_path / "moved")
        make(path, "theirs")

    swapless(patch, swap)
    at_step(patch, comes, interfere)
    try:
        replace(path)
    except ChangedError as error:
        assert error.kept is None or error.kept.is_dir()  # noqa: PT017
    found = visible(tmp_path)
    assert found == ["new"] if not came else "theirs" in found
    assert comes < STEPS - 1 or not came  # every step there is was tried
    assert not any(name.startswith(".") for name in names(tmp_path))


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_killed_at_any_step_while_another_thing_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool, there: bool
) -> None:
    """No step loses what its owner has put there; the old or the new one stands under the name otherwise."""
    killed = 0
    for comes, dies in itertools.product((None, *range(STEPS)), range(STEPS)):
        folder = tmp_path / f"{comes}-{dies}"
        folder.mkdir()
        path = folder / "out"
        if there:
            make(path, "old")

        def interfere(path: Path = path) -> None:
            if path.exists():
                path.rename(path.with_name("moved"))
            make(path, "theirs")

        with monkeypatch.context() as patched:

            def patch(name: str, value: Any, patched: pytest.MonkeyPatch = patched) -> None:
                patched.setattr(beside, name, value)

            def die() -> None:
                raise Killed

            patched.setattr(
                Beside, "__exit__", lambda place, *error: place._journal.close()
            )  # as a kill leaves it
            swapless(patch, swap)
            at_step(patch, comes, interfere)
            at_step(patch, dies, die)
            try:
                replace(path)
            except ChangedError:
                pass
            except Killed:
                killed += 1
        came = any(text == "theirs" for text in (p.read_text() for p in folder.rglob("content")))
        sweep(folder)
        found = visible(folder)
        assert ("theirs" in found) == came, (comes, dies, found)
        if not came:
            assert found in (["old"], ["new"]) if there else found in ([], ["new"]), (comes, dies, found)
        elif there and (folder / "moved").exists():
            assert (folder / "moved" / "content").read_text() in ("old", "new")
        assert not any(name.startswith(".") for name in names(folder)), (comes, dies, names(folder))
    assert killed > 4 * STEPS


def left(folder: Path, name: str = "out", host: str | None = None) -> Path:
    """The folder that a killed run leaves."""
    place = Beside(folder / name)
    place.__enter__()
    place._journal.close()
    work = place.new.parent
    return work.rename(work.with_name(work.name.replace(beside._host(), host or beside._host())))


def test_sweeps_every_name_in_the_folder(tmp_path: Path) -> None:
    left(tmp_path, "a")
    left(tmp_path, "b.json")
    replace(tmp_path / "c")
    assert names(tmp_path) == ["c"]


def test_living_runs_stay_whatever_their_number(tmp_path: Path) -> None:
    """Also this process itself, and one whose number another has had: the lock says who lives, not the number."""
    with Beside(tmp_path / "out") as place:
        place.new.mkdir()
        gone = re.sub(r"tmp-\d+", "tmp-999999999", place.new.parent.name)
        work = place.new.parent.rename(tmp_path / gone)
        sweep(tmp_path)
        assert (work / "new").is_dir()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_other_hosts_and_boots(tmp_path: Path) -> None:
    mine = beside._host()
    other = "0" * 16
    kept = left(tmp_path, "a", host=other)
    left(tmp_path, "b", host=mine[:8] + other[:8])  # before a boot of this host
    left(tmp_path, "c", host=other[:8] + mine[8:])  # another container here
    sweep(tmp_path)
    assert names(tmp_path) == [kept.name]


def test_what_looks_alike_stays(tmp_path: Path) -> None:
    """Without a journal under lock, by another scheme, a link, or with a journal that cannot be read."""
    like = f".out.tmp-1-{beside._host()}-0123abcd"
    (tmp_path / like).mkdir()
    (tmp_path / ".out.tmp-999999999-abcd").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / like.replace("0123", "4567")).symlink_to("elsewhere")
    odd = left(tmp_path)
    (odd / "lock").write_text(json.dumps([1, 2]) + "\n")
    before = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == before


def test_without_locks_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside._Journal, "_locked", lambda self: False)
    stays = left(tmp_path)
    replace(tmp_path / "out")
    assert names(tmp_path) == [stays.name, "out"]


@pytest.mark.parametrize("change", ["text", "more", "less", "renamed", "other folder"])
def test_look_sees_every_change(tmp_path: Path, change: str) -> None:
    make(tmp_path / "a", "one")
    seen = look(tmp_path / "a")
    assert look(tmp_path / "a") == seen
    (tmp_path / "a").rename(tmp_path / "b")
    assert look(tmp_path / "b") == seen
    if change == "text":
        (tmp_path / "b" / "content").write_text("two")
        os.utime(tmp_path / "b" / "content", ns=(0, 1))
    elif change == "more":
        (tmp_path / "b" / "empty").mkdir()
    elif change == "less":
        (tmp_path / "b" / "content").unlink()
    elif change == "renamed":
        (tmp_path / "b" / "content").rename(tmp_path / "b" / "other")
    else:
        (tmp_path / "b").rename(tmp_path / "c")
        make(tmp_path / "b", "one")
    assert look(tmp_path / "b") != seen


def test_exchange_swaps(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, name)
    assert atomic.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "content").read_text() == "b"
    with pytest.raises(OSError, match="No such file"):
        atomic.exchange(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_move_new_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flags: bool
) -> None:
    if not flags:
        monkeypatch.setattr(atomic, "_rename", lambda *args: False)
    for name in ("a", "b"):
        make(tmp_path / name, name) if kind == "folder" else (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("nowhere")
    for target in ("b", "link"):
        with pytest.raises(FileExistsError):
            atomic.move_new(tmp_path / "a", tmp_path / target)
    assert names(tmp_path) == ["a", "b", "link"]
    atomic.move_new(tmp_path / "a", tmp_path / "c")
    assert names(tmp_path) == ["b", "c", "link"]
