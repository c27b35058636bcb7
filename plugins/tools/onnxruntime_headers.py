"""Brings the headers of ONNX Runtime, which its wheel does not carry.

    python plugins/tools/onnxruntime_headers.py FOLDER

They come from Debian's package of them, compared with its SHA-256, and are all that is unpacked, into FOLDER/include;
what is there already stays. For tests, and for those without a release of ONNX Runtime, which holds the same headers.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

PACKAGE = "deb.debian.org/debian/pool/main/o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb"
#: The hash proves what comes, by either.
SCHEMES = ("https", "http")
SHA256 = "14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08"
#: Where the package has them, and which of them shows that all are there.
_HEADERS = "./usr/include/onnxruntime/"
_ONE = "onnxruntime_cxx_api.h"


def members(package: bytes) -> dict[str, bytes]:
    """The files of an ``ar`` archive, as a Debian package is one, by name."""
    if not package.startswith(b"!<arch>\n"):
        raise ValueError("no ar archive")
    found, at = {}, 8
    while at < len(package):
        header = package[at : at + 60]
        size = int(header[48:58])
        found[header[:16].decode().rstrip(" /")] = package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def unpack(package: bytes, target: Path) -> None:
    """The package's headers into ``target``; it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder, "include")
        part.mkdir()
        with tarfile.open(fileobj=io.BytesIO(members(package)["data.tar.xz"])) as archive:
            for entry in archive:
                stream = archive.extractfile(entry) if entry.name.startswith(_HEADERS) else None
                if stream is not None:
                    file = part / Path(entry.name).name  # they include each other by name alone
                    file.write_bytes(stream.read())
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)


def bring() -> bytes:
    """The package. Raises OSError."""
    failed = OSError("no scheme to try")
    for scheme in SCHEMES:
        try:
            with urllib.request.urlopen(f"{scheme}://{PACKAGE}", timeout=60) as answer:
                return bytes(answer.read())
        except OSError as error:  # URLError is one
            failed = error
    raise failed


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    if len(arguments) != 1:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    target = Path(arguments[0], "include")
    if (target / _ONE).is_file():
        return 0
    try:
        package = bring()
    except OSError as error:
        print(f"{PACKAGE}: cannot be brought: {error}", file=sys.stderr)
        return 4
    if hashlib.sha256(package).hexdigest() != SHA256:
        print(f"{PACKAGE}: its SHA-256 is not {SHA256}", file=sys.stderr)
        return 4
    unpack(package, target)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
