"""Makes a wheel of onnxruntime-gpu small: ``python plugins/tools/slim.py WHEEL --keep 90 -o FOLDER``.

ONNX Runtime's CUDA library holds machine code for every architecture since sm_75. This keeps that of one: the code of
the others is overwritten with zeros, in place, so that nothing moves; zeros compress to nothing. The library runs as
before on GPUs of the architecture that is kept, and on no others. For small containers, and for machines that a wheel
has to be carried to. Headers, libraries for development and the TensorRT provider are left as they are.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SECTION = b".nv_fatbin"
_MAGIC = 0xBA55ED50
_CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes of the entries behind it
_ENTRY = struct.Struct("<HHIQIIHHI")  # kind, version, bytes of this header, of the payload, ..., architecture


def section(library: bytes | bytearray, name: bytes) -> tuple[int, int]:
    """Offset and length of a section of an ELF64 library.

    Raises:
        ValueError: no ELF64 file, or it has no such section.
    """
    if library[:5] != b"\x7fELF\x02":
        raise ValueError("not a 64-bit ELF library")
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    (name_table,) = struct.unpack_from("<Q", library, table + names * size + 0x18)
    for number in range(count):
        at = table + number * size
        (name_at,) = struct.unpack_from("<I", library, at)
        end = library.index(b"\0", name_table + name_at)
        if library[name_table + name_at : end] == name:
            offset, length = struct.unpack_from("<QQ", library, at + 0x18)
            return int(offset), int(length)
    raise ValueError(f"no section {name.decode()}")


def entries(library: bytes | bytearray) -> Iterator[tuple[int, int, int]]:
    """``(architecture, offset, bytes)`` of the payload of every piece of machine code or PTX.

    Raises:
        ValueError: the section is not what CUDA 13 writes.
    """
    at, length = section(library, SECTION)
    end = at + length
    while at + _CONTAINER.size <= end:
        magic, _, header, size = _CONTAINER.unpack_from(library, at)
        if magic != _MAGIC:  # containers are aligned
            at += 8
            continue
        entry, behind = at + header, at + header + size
        if behind > end:
            raise ValueError("a container reaches beyond its section")
        while entry < behind:
            _, _, own, payload, *_, architecture = _ENTRY.unpack_from(library, entry)
            if own < _ENTRY.size or entry + own + payload > behind:
                raise ValueError("an entry reaches beyond its container")
            yield int(architecture), entry + own, int(payload)
            entry += own + payload
        at = behind


def slim(library: bytes, keep: int) -> tuple[bytes, Counter[int]]:
    """The library with the code of other architectures zeroed, and the bytes of code that each had.

    Raises:
        ValueError: no CUDA library, or it has no code for ``keep``.
    """
    out = bytearray(library)
    sizes: Counter[int] = Counter()
    for architecture, offset, size in entries(library):
        sizes[architecture] += size
        if architecture != keep:
            out[offset : offset + size] = bytes(size)
    if not sizes[keep]:
        raise ValueError(f"no code for sm_{keep}; it has {', '.join(f'sm_{a}' for a in sorted(sizes))}")
    return bytes(out), sizes


def main(arguments: list[str] | None = None) -> int:
    """Write the small wheel; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="onnxruntime_gpu-*.whl")
    parser.add_argument("--keep", type=int, required=True, metavar="90", help="the architecture that stays")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the small wheel")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / options.wheel.name
    if target.exists() and target.samefile(options.wheel):
        print(f"error: {target} is the wheel itself; choose another folder", file=sys.stderr)
        return 2
    try:
        with (
            zipfile.ZipFile(options.wheel) as source,
            zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel,
        ):
            for entry in source.infolist():
                data = source.read(entry)
                if entry.filename.endswith("libonnxruntime_providers_cuda.so"):
                    data, sizes = slim(data, options.keep)
                    print(", ".join(f"sm_{a}: {size >> 20} MiB" for a, size in sorted(sizes.items())))
                wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        target.unlink(missing_ok=True)
        print(f"error: {options.wheel}: {error}", file=sys.stderr)
        return 2
    print(f"{target}: {options.wheel.stat().st_size >> 20} MiB -> {target.stat().st_size >> 20} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
