"""safetensors files: checked before they are loaded.

Format: https://github.com/huggingface/safetensors#format. Eight bytes of header length (little endian), a JSON header
with dtype, shape and byte range of every tensor, then the data without gaps.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.checkpoint.limits import MAX_HEADER_BYTES, check_model_bytes
from tsmerge_export.errors import UsageError, first_line

if TYPE_CHECKING:
    from torch import Tensor

_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


def check_safetensors(path: Path) -> int:
    """Check that a file is complete: its header is sound and its size is what the header says.

    Returns:
        Bytes of tensor data.

    Raises:
        UsageError: missing, truncated, corrupt, or with a dtype that is not known.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if len(head) < 8 or 8 + length > size:
                raise UsageError(
                    f"{path}: truncated or not safetensors (its header is incomplete); download it again"
                )
            if length > MAX_HEADER_BYTES:
                raise UsageError(f"{path}: header of {length} bytes; this is not a safetensors file")
            header = json.loads(file.read(length))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: corrupt safetensors header (no JSON); download it again") from None
    data = _data_bytes(header, path)
    if 8 + length + data != size:
        raise UsageError(
            f"{path}: truncated or corrupt ({size} bytes, its header describes {8 + length + data}); download it again"
        )
    return data


def _data_bytes(header: Any, path: Path) -> int:
    """Bytes of data that the header describes; its ranges must follow each other without gap or overlap."""
    try:
        ranges = []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = (int(offset) for offset in entry["data_offsets"])
            shape = [int(length) for length in entry["shape"]]
            if min(shape, default=0) < 0 or end - begin != math.prod(shape) * _BYTES[entry["dtype"]]:
                raise ValueError(name)
            ranges.append((begin, end))
        position = 0
        for begin, end in sorted(ranges):
            if begin != position:
                raise ValueError("gap")
            position = end
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise UsageError(f"{path}: corrupt safetensors header; download it again") from None
    return position


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file, on the CPU, in the dtype they are stored in.

    Raises:
        UsageError: missing, truncated, corrupt or above the size cap.
    """
    check_model_bytes(str(path), check_safetensors(path))
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (
        SafetensorError,
        OSError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise UsageError(f"{path}: cannot be read as safetensors ({first_line(error)})") from None
