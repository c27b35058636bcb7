"""Bytes of a table: a file, plain or gzipped, or standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tsmerge_export.errors import UsageError

STDIN = "-"
SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet")
_MAX_BYTES = 1 << 30
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"


@dataclass(frozen=True)
class Source:
    """A table's bytes and how messages call it.

    Attributes:
        path: as the user gave it. flag: in front of it in messages, with a space behind, or nothing.
        content: as stored.
    """

    path: str
    flag: str
    content: bytes

    @property
    def label(self) -> str:
        """What messages begin with."""
        return f"{self.flag}{self.path}"

    @property
    def name(self) -> str:
        """Of the file, without its folder."""
        return "standard input" if self.path == STDIN else Path(self.path).name

    @property
    def is_parquet(self) -> bool:
        """Whether it holds columns with types, not text."""
        if self.path == STDIN:
            return self.content[:4] == _PARQUET
        return self.path.lower().endswith(".parquet")

    def text(self) -> str:
        """Unpacked and decoded, newlines as ``\\n``. Raises UsageError for what is no text."""
        raw = self.content
        if self.path.lower().endswith(".gz") or (self.path == STDIN and raw[:2] == _GZIP):
            raw = self._unpacked()
        try:
            text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError(f"{self.label}: not a UTF-8 text file; save it as one") from None
        if "\0" in text:
            raise UsageError(f"{self.label}: not a text file")
        if not text.strip():
            raise UsageError(f"{self.label}: the file is empty; give a table with one row per time step")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _unpacked(self) -> bytes:
        try:
            with gzip.open(io.BytesIO(self.content)) as file:
                raw = file.read(_MAX_BYTES + 1)
        except EOFError:
            raise UsageError(f"{self.label}: the gzip file is truncated") from None
        except OSError as error:  # gzip.BadGzipFile
            raise UsageError(f"{self.label}: cannot be read: {error.strerror or error}") from None
        except zlib.error as error:
            raise UsageError(f"{self.label}: cannot be unpacked: {error}") from None
        _within_limit(self.label, raw)
        return raw


def open_source(path: str | Path, flag: str = "") -> Source:
    """Read the bytes of a file, or of standard input for ``-``.

    Args:
        flag: what messages have in front of the path, ``--data`` say.

    Raises:
        UsageError: no such file, of an unknown kind, unreadable, larger than 1 GiB.
    """
    text = str(path)
    label = f"{flag} {text}" if flag else text
    flag = f"{flag} " if flag else ""
    try:
        if text == STDIN:
            raw = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            check_suffix(text, label)
            with cast(BinaryIO, Path(text).open("rb")) as file:
                raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{label}: no such file") from None
    except OSError as error:
        raise UsageError(f"{label}: cannot be read: {error.strerror or error}") from None
    _within_limit(label, raw)
    return Source(text, flag, raw)


def check_suffix(path: str, label: str) -> None:
    """Raises UsageError for a file whose name says it is none of those that are read."""
    if path != STDIN and not path.lower().endswith(SUFFIXES):
        raise UsageError(
            f"{label}: unknown kind of file; give a .csv, .tsv or .txt (also .gz) or .parquet file, or - for "
            "standard input"
        )


def _within_limit(label: str, raw: bytes) -> None:
    if len(raw) > _MAX_BYTES:
        raise UsageError(f"{label}: larger than 1 GiB; give a shorter part of it")
