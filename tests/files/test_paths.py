"""Where names from files may lead, and the hub's cache: links in ``snapshots/`` to files in ``blobs/``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.files.hub import hub_cache
from tsmerge_export.errors import UsageError
from tsmerge_export.files.paths import beside, is_inner_name, room_for


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "C:x", "C:\\x", "a\\b", "a\0b", None, 3]
)
def test_names_that_leave(name: object, tmp_path: Path) -> None:
    assert not is_inner_name(name)
    if isinstance(name, str):
        assert beside(tmp_path / "model.onnx", name) is None


def test_beside(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    owner = tmp_path / "model" / "model.onnx"
    for name in ("weights.bin", "parts/weights.bin", "a..b"):
        assert is_inner_name(name) and beside(owner, name) == tmp_path / "model" / name
    (tmp_path / "secret").touch()
    (owner.parent / "link").symlink_to("../secret")
    (owner.parent / "circle").symlink_to("circle")
    assert beside(owner, "link") is None
    assert beside(owner, "circle") is None or not (owner.parent / "circle").exists()


def test_links_of_a_cache(tmp_path: Path) -> None:
    for name in ("model", "data", "secret"):
        (tmp_path / name).touch()
    root = tmp_path / "hub"
    snapshot = hub_cache({"onnx/model.onnx": tmp_path / "model", "onnx/data": tmp_path / "data"}, root)
    owner = snapshot / "onnx" / "model.onnx"
    assert beside(owner, "data") == root / "blobs" / f"{1:040x}"
    (snapshot / "onnx" / "out").symlink_to(tmp_path / "secret")
    assert beside(owner, "out") is None
    owner.unlink()
    owner.touch()  # no link: then a link of its neighbour to the blobs leaves the folder
    assert beside(owner, "data") is None


def test_room_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name, words in (("file", "is a file"), ("file/in/it", "cannot be made")):
        with pytest.raises(UsageError, match=f"-o {name}: .*{words}"):
            room_for(tmp_path / name, name)
    assert room_for(tmp_path / "a" / "b", "b") == tmp_path / "a" / "b"
    assert (tmp_path / "a").is_dir() and not (tmp_path / "a" / "b").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UsageError, match="no permission to write in"):
        room_for(tmp_path / "a" / "b", "b")
