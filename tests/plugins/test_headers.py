"""The script that brings the headers of ONNX Runtime, on a package made here."""

from __future__ import annotations

import hashlib
import io
import tarfile
import urllib.error
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.plugins.emulated import ROOT


@pytest.fixture
def script() -> ModuleType:
    module = ModuleType("onnxruntime_headers")
    exec((ROOT / "tools" / "onnxruntime_headers.py").read_text(), module.__dict__)
    return module


def _package() -> bytes:
    """An ar archive as a Debian package is one: members of odd length are padded."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        for name, text in (
            ("./usr/include/onnxruntime/onnxruntime_cxx_api.h", b"// api"),
            ("./usr/include/onnxruntime/core/providers/resource.h", b"// resource"),
            ("./usr/lib/libonnxruntime.so", b"no header"),
            ("../outside.h", b"no header of the package"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0"), ("data.tar.xz", packed.getvalue())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        out += content + b"\n" * (len(content) % 2)
    return out


def test_headers_alone_are_unpacked(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, asked = _package(), []

    def answer(address: str, timeout: float) -> Any:
        asked.append(address)
        if address.startswith("https:"):
            raise urllib.error.URLError("no certificate")
        return io.BytesIO(package)

    monkeypatch.setattr(script.urllib.request, "urlopen", answer)
    monkeypatch.setattr(script, "SHA256", hashlib.sha256(package).hexdigest())
    assert script.main([str(tmp_path / "ort")]) == 0
    found = {
        str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()
    }
    assert found == {
        "ort/include/onnxruntime_cxx_api.h": "// api",
        "ort/include/resource.h": "// resource",
    }
    assert [address.split(":")[0] for address in asked] == ["https", "http"]
    assert script.main([str(tmp_path / "ort")]) == 0
    assert len(asked) == 2  # what is there stays


def test_another_package_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(_package()))
    assert script.main([str(tmp_path / "ort")]) == 4
    assert "its SHA-256 is not" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_network(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*_: object, **__: object) -> Any:
        raise urllib.error.URLError("unreachable")

    monkeypatch.setattr(script.urllib.request, "urlopen", answer)
    assert script.main([str(tmp_path / "ort")]) == 4
    assert "cannot be brought" in capsys.readouterr().err
    assert script.main([]) == 2
