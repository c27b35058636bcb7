"""Reading and checking ``config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsmerge_export.checkpoint.limits import MAX_CONFIG_BYTES
from tsmerge_export.errors import UsageError


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a small JSON file whose top level is an object.

    Raises:
        UsageError: missing, unreadable, too large, no JSON, or not an object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise UsageError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; this is not a configuration")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UsageError(f"{path}: not valid JSON (nested too deeply)") from None
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: must hold a JSON object")
    return content


def read_config(path: Path) -> dict[str, Any]:
    """The model configuration in ``path``. Raises UsageError as :func:`read_json_object`."""
    return read_json_object(path)


def check_config(config: Mapping[str, Any], source: str, trust_remote_code: bool) -> None:
    """Refuse a configuration that asks for code of its own, unless the user trusts it.

    Raises:
        UsageError: ``auto_map`` is set and ``trust_remote_code`` is not.
    """
    if config.get("auto_map") and not trust_remote_code:
        raise UsageError(
            f"{source}: its config asks for code of its own (auto_map); add --trust-remote-code to accept it"
        )
