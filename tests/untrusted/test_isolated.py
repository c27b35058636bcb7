"""Work in a process of its own: what it answers, its limits, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.isolated import Child, Limits, seconds_allowed

GIB = 2**30


def task(request: dict[str, Any]) -> dict[str, Any]:
    """Does in the child what the test asks for."""
    what = request["do"]
    if what == "echo":
        print("a library prints")
        print("and complains", file=sys.stderr)
        return {"echo": request["value"], "pid": os.getpid()}
    if what == "refuse":
        raise UsageError("this is\nthe user's fault")
    if what == "fail":
        raise RuntimeError("something\ninside")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "memory":
        return {"bytes": len(bytearray(request["value"]))}
    if what == "file":
        Path(request["value"]).write_bytes(bytes(10_000))
    if what == "chatter":
        return {"text": "x" * 4_000_000}
    time.sleep(600)
    return {}


def child(seconds: float = 60.0, memory: int = 4 * GIB) -> Child:
    return Child("tests.untrusted.test_isolated:task", "model.pt2", Limits(seconds, memory, 5_000))


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_dies_with_its_parent(number: int) -> None:
    code = (
        "import signal\n"
        "from tests.untrusted.test_isolated import child\n"
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
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child is still there")


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
