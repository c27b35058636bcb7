"""The script that makes wheels of onnxruntime-gpu small, on a library made here and on one by nvcc."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

from plugins.tools import slim
from tests.plugins.wheels import Installed

CODE = {80: b"\x80" * 24, 90: b"\x90" * 40}


def _library(code: dict[int, bytes] = CODE) -> bytes:
    """An ELF64 file with one fat binary of two pieces of code, and a section of names."""
    pieces = b"".join(
        struct.pack("<HHIQIIHHI", 2, 0x101, 64, len(text), 0, 0, 0, 0, architecture).ljust(64, b"\0") + text
        for architecture, text in code.items()
    )
    fat = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(pieces)) + pieces
    names = b"\0.nv_fatbin\0.shstrtab\0"
    body = b"\0" * 8 + fat  # containers are aligned, not all in front
    at, table = 64, 64 + len(body) + len(names)
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 0x28, table)
    struct.pack_into("<HHH", header, 0x3A, 64, 3, 2)
    sections = bytearray(64 * 3)
    for number, (name, offset, size) in enumerate(
        ((1, at, len(body)), (12, at + len(body), len(names))), start=1
    ):
        struct.pack_into("<I", sections, 64 * number, name)
        struct.pack_into("<QQ", sections, 64 * number + 0x18, offset, size)
    return bytes(header) + body + names + bytes(sections)


def test_code_of_other_architectures_is_zeroed_in_place() -> None:
    library = _library()
    out, sizes = slim.slim(library, 90)
    assert sizes == {80: 24, 90: 40}
    assert out == library.replace(CODE[80], bytes(24))
    assert list(slim.entries(out)) == list(slim.entries(library))


@pytest.mark.parametrize(
    ("library", "why"),
    [
        (b"no library at all", "not a 64-bit ELF library"),
        (_library().replace(b".nv_fatbin", b".nv_nothing"[:10]), "no section .nv_fatbin"),
        (_library({80: b"x" * 8}), "no code for sm_90; it has sm_80"),
        (_library().replace(struct.pack("<Q", 24), struct.pack("<Q", 2400), 1), "reaches beyond"),
    ],
)
def test_what_is_no_such_library_is_refused(library: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        slim.slim(library, 90)


def test_a_wheel_keeps_its_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = tmp_path / "onnxruntime_gpu-1-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("onnxruntime/capi/libonnxruntime_providers_cuda.so", _library())
        archive.writestr("onnxruntime/__init__.py", "x = 1\n")
    assert slim.main([str(wheel), "--keep", "90", "-o", str(tmp_path / "small")]) == 0
    with zipfile.ZipFile(tmp_path / "small" / wheel.name) as archive:
        assert archive.read("onnxruntime/__init__.py") == b"x = 1\n"
        assert CODE[80] not in archive.read("onnxruntime/capi/libonnxruntime_providers_cuda.so")
    assert slim.main([str(wheel), "--keep", "75", "-o", str(tmp_path / "none")]) == 2
    assert "no code for sm_75" in capsys.readouterr().err
    assert not list((tmp_path / "none").iterdir())
    assert slim.main([str(wheel), "--keep", "90", "-o", str(tmp_path)]) == 2


def test_a_real_library_is_read(cuda_wheel: Installed) -> None:
    library = cuda_wheel.operators.read_bytes()
    assert {architecture for architecture, _, _ in slim.entries(library)} == {90}
    assert slim.slim(library, 90)[0] == library
