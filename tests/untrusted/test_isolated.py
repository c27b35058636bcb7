"""Work in a process of its own: what it answers, its limits, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.events import until
from tests.untrusted.children import GIB, child
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.isolated import seconds_allowed


def test_answers(capfd: pytest.CaptureFixture[str]) -> None:
    with child() as process:
        first = process.ask({"do": "echo", "value": [1, "two"]})
        assert first["echo"] == [1, "two"]
        assert first["pid"] != os.getpid()
        with pytest.raises(UsageError, match=r"^model.pt2: this is the user's fault$"):
            process.ask({"do": "refuse"})
        with pytest.raises(UnsupportedError, match=r"^model.pt2: RuntimeError: something inside$"):
            process.ask({"do": "fail"})
        assert process.ask({"do": "echo", "value": 0})["pid"] == first["pid"]  # it goes on after an error
    with pytest.raises(ProcessLookupError):
        os.kill(first["pid"], 0)
    assert capfd.readouterr() == ("", "")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with child(memory=2 * GIB) as process:
        with pytest.raises(UnsupportedError, match="needs more memory than it may have"):
            process.ask({"do": "memory", "value": 3 * GIB})
        assert process.ask({"do": "memory", "value": GIB // 4}) == {"bytes": GIB // 4}
        with pytest.raises(UnsupportedError):
            process.ask({"do": "file", "value": str(tmp_path / "large")})
    assert (tmp_path / "large").stat().st_size <= 5_000
    monkeypatch.setattr(isolated, "_MAX_ANSWER", 1_000_000)
    for what, message in (
        ("crash", f"ended with signal {signal.SIGSEGV:d}"),
        ("chatter", "an answer that is too long"),
    ):
        with child() as process, pytest.raises(UnsupportedError, match=message):
            process.ask({"do": what})
    with child(seconds=3) as process, pytest.raises(UnsupportedError, match="no answer in 3 s; TSMERGE_MAX_"):
        process.ask({"do": "sleep"})


def gone(pid: int) -> bool:
    """Whether a process has ended, also where nobody has asked how."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_dies_with_its_parent(number: int) -> None:
    code = (
        "import signal\n"
        "from tests.untrusted.children import child\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits that it is ignored\n"
        "with child() as process:\n"
        "    print(process.ask({'do': 'echo', 'value': 0})['pid'], flush=True)\n"
        "    process.ask({'do': 'sleep'})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(number)
    parent.wait(30)
    parent.stdout.close()
    assert until(lambda: gone(pid)), "the child is still there"


def test_nothing_of_the_current_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A downloaded folder may have a ``json.py`` beside its model."""
    (tmp_path / "json.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    with child() as process:
        assert process.ask({"do": "echo", "value": 1})["echo"] == 1


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", text)
    with pytest.raises(UsageError, match="TSMERGE_MAX_SECONDS"):
        seconds_allowed()


def test_a_group_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of another group by then."""
    killed: list[int] = []
    killpg = os.killpg

    def telling(group: int, number: int) -> None:
        killed.append(group)
        killpg(group, number)

    monkeypatch.setattr(isolated.os, "killpg", telling)
    process = isolated.LineProcess("import sys; sys.exit()")
    with pytest.raises(isolated.Ended):
        process.ask("anything", 30.0)
    process.kill()
    process.kill()
    assert len(killed) == 1
