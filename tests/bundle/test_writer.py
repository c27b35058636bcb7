"""The bundle: complete or not there, and never read when it was changed."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bundle.made import DESCRIBED, fails, names, write
from tsmerge_export.bundle import Bundle, BundleWriter, TensorInfo, check_output
from tsmerge_export.errors import UsageError
from tsmerge_export.files import beside
from tsmerge_export.typed import plain


def test_round_trip(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    made = write(output)
    opened = Bundle.open(output)
    assert made == opened
    assert opened.path == output
    assert opened.manifest["format"] == "tsmerge-bundle"
    assert opened.manifest["format_version"] == 1
    assert opened.manifest["files"] == {
        "model.onnx": {"size": 5, "sha256": hashlib.sha256(b"graph").hexdigest()},
        "sub/notes.txt": {"size": 5, "sha256": hashlib.sha256(b"notes").hexdigest()},
    }
    (component,) = opened.components
    assert component.file == output / "model.onnx"
    assert component.inputs == (TensorInfo("context", "float32", ("batch", "length")),)
    assert component.outputs[0].dims == ("batch", 3, 16)
    assert component.merges == tuple(map(plain, DESCRIBED.components[0].merges))
    assert component.merges[0]["layer"] == 0
    assert opened.component("model") is component
    assert opened.verdicts == {}
    assert {name: value for name, value in vars(opened.contents).items() if name != "files"} == vars(
        DESCRIBED
    )
    assert names(output.parent) == ["out"]
    fails("has no component 'decoder'", opened.component, "decoder")


def test_existing_bundle_needs_force(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write(output, b"old")
    fails("exists already; add --force", BundleWriter, output)
    write(output, b"new", force=True)
    assert (output / "model.onnx").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_without_an_atomic_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    write(output, b"old")
    monkeypatch.setattr(beside, "exchange", lambda first, second: False)
    write(output, b"new", force=True)
    assert (output / "model.onnx").read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_empty_folder_needs_force(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    fails("exists already; add --force", check_output, output)
    write(output, force=True)
    assert Bundle.open(output)


def test_force_replaces_nothing_but_bundles(tmp_path: Path) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter1.tex").touch()
    fails("not a bundle, --force does not replace it", check_output, output, True)
    (output / "manifest.json").write_text('{"format": "something else"}')
    fails("not a bundle, --force does not replace it", check_output, output, True)
    (tmp_path / "file").touch()
    fails("is a file", check_output, tmp_path / "file", True)
    fails("not a folder name", check_output, "/", True)
    fails("cannot be made", check_output, tmp_path / "file" / "below")


def test_link_to_a_bundle_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "real", b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", b"new", force=True)
    assert (tmp_path / "real" / "model.onnx").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


def test_no_write_permission(tmp_path: Path) -> None:
    """In a process without root's rights, so that it holds for whoever runs the tests."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()).resolve():
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            check_output(closed / "out")
        except UsageError as error:
            os._exit(0 if "no permission to write in" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def interrupted(output: Path, error: type[BaseException], force: bool) -> None:
    with BundleWriter(output, force) as writer:
        (writer.path / "model.onnx").write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    output = tmp_path / "out"
    for old in (False, True):
        if old:
            write(output, b"old")
        with pytest.raises(error):
            interrupted(output, error, force=old)
        assert names(tmp_path) == (["out"] if old else [])
    assert (output / "model.onnx").read_bytes() == b"old"


def test_failure_while_moving_into_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    write(output, b"old")
    monkeypatch.setattr(beside, "exchange", lambda first, second: False)
    real = beside.move_new

    def failing(source: Path, target: Path) -> None:
        if source.name == "new":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(beside, "move_new", failing)
    fails("cannot be written .No space left", write, output, b"new", force=True)
    assert (output / "model.onnx").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("theirs", ["folder", "file", "link", "bundle", "changed", "empty folder"])
def test_what_comes_there_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: bool, theirs: str
) -> None:
    """With --force too, whatever it is: only the bundle that was checked at the beginning may go."""
    if not swap:
        monkeypatch.setattr(beside, "exchange", lambda first, second: False)
    output = tmp_path / "out"
    write(output, b"old")
    with BundleWriter(output, force=True) as writer:
        (writer.path / "model.onnx").write_bytes(b"new")
        if theirs != "changed":
            output.rename(tmp_path / "moved")
        if theirs in ("folder", "empty folder"):
            output.mkdir()
        if theirs in ("folder", "changed"):
            (output / "precious.txt").write_text("mine")
        elif theirs == "file":
            output.write_text("mine")
        elif theirs == "link":
            output.symlink_to("moved")
        elif theirs == "bundle":
            write(output, b"theirs")
        stands = beside.look(output)
        fails("by someone else meanwhile, and stays; no bundle is written", writer.commit, DESCRIBED)
    assert beside.look(output) == stands
    assert names(tmp_path) == (["out"] if theirs == "changed" else ["moved", "out"])


def test_old_bundle_taken_away_meanwhile(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write(output, b"old")
    with BundleWriter(output, force=True) as writer:
        (writer.path / "model.onnx").write_bytes(b"new")
        output.rename(tmp_path / "moved")
        writer.commit(DESCRIBED)
    assert (output / "model.onnx").read_bytes() == b"new"
    assert (Bundle.open(tmp_path / "moved").path / "model.onnx").read_bytes() == b"old"


def test_files_of_the_user_in_a_bundle(tmp_path: Path) -> None:
    """Refused before any work. An engine that the bundle's own script built beside a model is the bundle's."""
    output = tmp_path / "out"
    write(output, b"old")
    (output / "model.engine").touch()
    check_output(output, force=True)
    (output / "sub" / "forecast.csv").write_text("mine")
    fails("holds sub/forecast.csv, which is not part of the bundle", check_output, output, True)
    (output / "sub" / "forecast.csv").unlink()
    (output / "link").symlink_to(tmp_path)
    fails("holds link, which is not part", check_output, output, True)


def test_made_by_someone_else_meanwhile(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with BundleWriter(output) as writer:
        (writer.path / "model.onnx").write_bytes(b"mine")
        write(output, b"theirs")
        fails("by someone else", writer.commit, DESCRIBED)
    assert (output / "model.onnx").read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


_WORKER = """
import os, signal, sys
from tests.bundle.made import DESCRIBED
from tsmerge_export.files import beside
from tsmerge_export.bundle import writer as module
output, stop, swap = sys.argv[1], sys.argv[2], sys.argv[3] == "swap"
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if not swap:
    beside.exchange = lambda first, second: False
if stop == "before-sync":
    module.fsync_tree = kill
if stop == "between":
    beside.move_new = kill
if stop == "after":
    real, calls = module.fsync_tree, []
    def second(*args, **kwargs):
        calls.append(args)
        kill() if len(calls) == 2 else real(*args, **kwargs)
    module.fsync_tree = second
with module.BundleWriter(output, True) as writer:
    if stop == "at-start":
        kill()
    (writer.path / "model.onnx").write_bytes(b"new")
    if stop == "half":
        kill()
    writer.commit(DESCRIBED)
"""


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("swap", ["swap", "two renames"])
@pytest.mark.parametrize("stop", ["at-start", "half", "before-sync", "between", "after"])
def test_sigkill_at_any_step(tmp_path: Path, stop: str, swap: str, old: bool) -> None:
    output = tmp_path / "out"
    if old:
        write(output, b"old")
    if stop == "between" and (swap == "swap" or not old):
        stop = "after"  # one step: there is no between
    result = subprocess.run(
        [sys.executable, "-c", _WORKER, str(output), stop, swap], cwd=Path(__file__).parents[2], check=False
    )
    assert result.returncode == -signal.SIGKILL
    # What stands under the name is whole, or nothing where there was nothing before.
    if old or output.exists() or stop == "after":
        expected = b"new" if stop == "after" else b"old"
        assert (Bundle.open(output).path / "model.onnx").read_bytes() == expected
    else:
        assert all(name.startswith(".out.tmp-") for name in names(tmp_path))
    # The next run removes what is left.
    write(output, b"next", force=True)
    assert (Bundle.open(output).path / "model.onnx").read_bytes() == b"next"
    assert names(tmp_path) == ["out"]
