"""Bundles as they are read: never where a file was changed, never by a manifest that says what it must not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.made import COMPONENT, fails, write
from tests.files.hub import hub_cache
from tsmerge_export.bundle import Bundle


def change(output: Path, **values: Any) -> None:
    file = output / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest.update(values)
    file.write_text(json.dumps(manifest))


def test_changed_files_are_refused(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write(output)
    (output / "model.onnx").write_bytes(b"grapH")  # same size
    fails(r"model\.onnx: was changed", Bundle.open, output)
    assert Bundle.open(output, verify=False)
    (output / "model.onnx").unlink()
    fails(r"model\.onnx: is missing", Bundle.open, output)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a\\b", "C:/x", "sub/../../x", ".", "", "manifest.json"]
)
def test_names_outside_the_folder(tmp_path: Path, name: str) -> None:
    output = tmp_path / "out"
    write(output)
    (tmp_path / "evil").write_bytes(b"x")
    entry = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    change(output, files={name: entry})
    fails("leaves the bundle's folder", Bundle.open, output)


def test_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write(output)
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    cached = hub_cache(files, tmp_path / "hub")
    assert Bundle.open(cached).component("model").file.read_bytes() == b"graph"
    link = cached / "model.onnx"
    link.resolve().rename(tmp_path / "graph")
    link.unlink()
    link.symlink_to(tmp_path / "graph")
    fails("is a link that leaves the bundle's folder", Bundle.open, cached)


def test_link_outside_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write(output)
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (output / "model.onnx").unlink()
    (output / "model.onnx").symlink_to("../model.onnx")
    fails("is a link that leaves", Bundle.open, output)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"format": "zip"}, "not a bundle of tsmerge-export"),
        ({"format_version": 2}, "bundle format 2, this version reads 1"),
        ({"files": {}}, "lists no files"),
        (
            {"files": {"model.onnx": {"size": 5}}},
            r"manifest\.json: files\['model\.onnx'\]\.sha256 is missing",
        ),
        ({"components": []}, "has no components"),
        ({"components": [{"name": "model"}]}, r"manifest\.json: components\[0\]\.file is missing"),
        ({"components": 3}, "components is 3, expected a list"),
        ({"components": [{**COMPONENT, "file": "other.onnx"}]}, "not among the listed files"),
    ],
)
def test_broken_manifest(tmp_path: Path, values: dict[str, Any], match: str) -> None:
    write(tmp_path / "out")
    change(tmp_path / "out", **values)
    fails(match, Bundle.open, tmp_path / "out")


def test_no_bundle(tmp_path: Path) -> None:
    fails("no such folder", Bundle.open, tmp_path / "nothing")
    fails(r"not a bundle \(no manifest", Bundle.open, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    fails("not valid JSON", Bundle.open, tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    fails("not a bundle", Bundle.open, tmp_path)
    fails("not a folder", Bundle.open, tmp_path / "manifest.json")
