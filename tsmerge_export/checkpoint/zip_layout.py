"""zip files in which every reader finds the same: one directory, and no byte that belongs to no entry."""

from __future__ import annotations

import struct
import zipfile
from typing import BinaryIO

from tsmerge_export.errors import UsageError

_LOCAL = struct.Struct("<4s22xHH")  # signature, length of the name, of the extra field
_END, _END_64 = 22, 22 + 20 + 56  # bytes of the end records, without and with those of zip64
_DESCRIPTOR = (12, 16, 20, 24)  # bytes that may follow an entry whose size was not known before


def check_layout(file: BinaryIO, archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    """The entries of an archive, after a look at where they lie.

    A file may hold two directories, of which Python's reader takes one and torch's the other. In a plain file the
    entries begin at the first byte, follow each other, and are followed by the one directory and its end.

    Args:
        file: what ``archive`` reads. name: for the message.

    Raises:
        UsageError: bytes that belong to no entry, entries that overlap or have one name, a comment.
        BadZipFile, struct.error: no zip file.
    """
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    position, directory = 0, 0
    plain = len({entry.filename for entry in entries}) == len(entries) and not archive.comment
    for entry in entries:
        plain = plain and entry.header_offset == position
        file.seek(entry.header_offset)
        signature, name_bytes, extra = _LOCAL.unpack(file.read(_LOCAL.size))
        local_name = file.read(name_bytes)
        encoding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
        plain = plain and signature == b"PK\3\4" and local_name == entry.orig_filename.encode(encoding)
        position = entry.header_offset + _LOCAL.size + name_bytes + extra + entry.compress_size
        if entry.flag_bits & 0x8:
            position += _descriptor(file, position)
        directory += 46 + name_bytes + len(entry.extra) + len(entry.comment)
    end = file.seek(0, 2) - position - directory
    if not plain or archive.start_dir != position or end not in (_END, _END_64):
        raise UsageError(f"{name}: is no plain archive (bytes that belong to no entry); save it again")
    return entries


def _descriptor(file: BinaryIO, position: int) -> int:
    """Bytes up to the next entry or the directory."""
    file.seek(position)
    following = file.read(max(_DESCRIPTOR) + 4)
    return next((n for n in _DESCRIPTOR if following[n : n + 4] in (b"PK\3\4", b"PK\1\2")), 0)
