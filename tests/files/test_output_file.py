"""Single output files: whole or not at all, and in nobody's place but that of what was there at the beginning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.files.output_file import OutputFile


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_again_and_again(tmp_path: Path) -> None:
    file = OutputFile("--json", tmp_path / "r.json")
    for text in ("one", "two"):
        file.write_text(text)
        assert (tmp_path / "r.json").read_text() == text
    assert names(tmp_path) == ["r.json"]


def test_failure_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        OutputFile("--json", tmp_path / "r.json").write_text("half \ud800")
    assert (tmp_path / "r.json").read_text() == "old"
    assert names(tmp_path) == ["r.json"]


@pytest.mark.parametrize("there", [True, False])
def test_what_comes_there_meanwhile_stays(tmp_path: Path, there: bool) -> None:
    place = tmp_path / "r.json"
    if there:
        place.write_text("old")
    file = OutputFile("--json", place)
    place.write_text("theirs")
    with pytest.raises(UsageError, match=r"--json .*r\.json: was made or changed by someone else meanwhile"):
        file.write_text("ours")
    assert place.read_text() == "theirs"
    assert names(tmp_path) == ["r.json"]


def test_links_and_rights_stay(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "real.json").chmod(0o600)
    (tmp_path / "link.json").symlink_to("real.json")
    OutputFile("--json", tmp_path / "link.json").write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o600


def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    """A device is not replaced by a file, not even where the user may do that."""
    OutputFile("--json", os.devnull).write_text("waste")
    assert Path(os.devnull).is_char_device()
    script = (
        "from tsmerge_export.files.output_file import OutputFile\n"
        "OutputFile('--json', '/dev/stdout').write_text('found')"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "found"


@pytest.mark.parametrize("path", [".", "no/such/r.json"])
def test_no_place_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"--json {path}: cannot be written"):
        OutputFile("--json", path)
