"""``.pt`` files: read with ``weights_only=True`` and nothing else, written by ``save_checkpoint``."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.checkpoint.zip_layout import check_layout
from tsmerge_export.errors import UsageError
from tsmerge_export.files.output_file import OutputFile

FORMAT = "tsmerge-checkpoint"
FORMAT_VERSION = 1
_CONVERT = "convert it where you trust it: tsmerge_export.save_checkpoint(model, path)"


def read_torch_file(path: Path) -> Any:
    """The content of a file written by ``torch.save``, restricted to tensors and plain containers.

    Raises:
        UsageError: missing, truncated, above the size cap, or holding pickled objects.
    """
    try:
        with path.open("rb") as file:  # one and the same is checked and loaded
            size = path.stat().st_size
            if zipfile.is_zipfile(file):
                # What it unpacks to counts, not what it packs to; torch reads it with a zip reader of its own.
                with zipfile.ZipFile(file) as archive:
                    entries = check_layout(file, archive, str(path))
                size = max(size, sum(entry.file_size for entry in entries))
                if any(entry.filename.endswith("/constants.pkl") for entry in entries):
                    raise UsageError(f"{path}: a TorchScript archive, which holds code; {_CONVERT}")
            check_model_bytes(str(path), size)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and _looks_pickled(path):
            raise UsageError(
                f"{path}: holds pickled Python objects, which are not loaded; {_CONVERT}"
            ) from None
        raise UsageError(f"{path}: truncated or not a PyTorch file") from None
    except (
        EOFError,
        RuntimeError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        NotImplementedError,
        OverflowError,
        RecursionError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: truncated, corrupt or not a PyTorch file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _looks_pickled(path: Path) -> bool:
    """A whole zip archive, or a file that starts like a binary pickle."""
    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        return file.read(1) == b"\x80"


def bare_state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """``content`` as name -> tensor. Raises UsageError when it is anything else."""
    named = isinstance(content, Mapping) and len(content) > 0
    if named and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()):
        return dict(content)
    raise UsageError(f"{path}: holds no state_dict (names with tensors); {_CONVERT}")


def split_checkpoint(content: Any, path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Configuration and weights in the content of a ``.pt`` file; the configuration is None for a bare state_dict.

    Raises:
        UsageError: neither a checkpoint of ours nor a state_dict, or a newer format version.
    """
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return None, bare_state_dict(content, path)
    if content.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"{path}: checkpoint format {content.get('format_version')!r} is not known; upgrade tsmerge-export"
        )
    config = content.get("config")
    if not isinstance(config, dict):
        raise UsageError(
            f"{path}: the checkpoint has no config; write it again with tsmerge_export.save_checkpoint"
        )
    return config, bare_state_dict(content.get("state_dict"), path)


def write_checkpoint(model: Any, path: Path) -> Path:
    """See :func:`tsmerge_export.checkpoint.save_checkpoint`."""
    from tsmerge_export import families

    family, inner = families.for_model(model)
    config = json.loads(json.dumps(family.config_of(inner), default=str))
    state = {name: tensor.detach().cpu() for name, tensor in inner.state_dict().items()}
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, "config": config, "state_dict": state}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give a file name such as {path / 'model.pt'}")

    def save(place: Path) -> None:
        with place.open("wb") as file:  # a full disk is an OSError then
            torch.save(content, file)

    OutputFile("checkpoint", path).write(save)
    return path
