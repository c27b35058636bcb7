"""How large a model file may be, so that an untrusted file cannot exhaust the machine."""

from __future__ import annotations

import os

from tsmerge_export.errors import UsageError

MAX_MODEL_BYTES = 32 * 2**30  # all weights of a model together; TSMERGE_MAX_MODEL_BYTES overrides it
MAX_CONFIG_BYTES = 16 * 2**20  # a config.json or a shard index
MAX_HEADER_BYTES = 100_000_000  # a safetensors header; the limit of the safetensors library itself


def check_model_bytes(name: str, size: int) -> None:
    """Refuse weights above the cap.

    Args:
        name: file or folder, for the message.
        size: bytes of weights.

    Raises:
        UsageError: too large, or TSMERGE_MAX_MODEL_BYTES is not a whole number.
    """
    text = os.environ.get("TSMERGE_MAX_MODEL_BYTES", str(MAX_MODEL_BYTES))
    if not text.isdecimal():
        raise UsageError(f"TSMERGE_MAX_MODEL_BYTES={text} is not a whole number of bytes")
    if size > int(text):
        raise UsageError(
            f"{name}: {size} bytes of weights exceed the cap of {text}; raise TSMERGE_MAX_MODEL_BYTES"
        )
