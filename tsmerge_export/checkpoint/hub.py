"""Download of a model from the Hugging Face hub; after that it is a folder like any other."""

from __future__ import annotations

import re
from pathlib import Path

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError, UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SAFE = [
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
]
_OLD = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
_FILE_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".json", ".ckpt", ".pkl")


def is_hub_id(source: str) -> bool:
    """True for ``org/name``. A name that ends like a file is taken for a path."""
    return _HUB_ID.fullmatch(source) is not None and not source.lower().endswith(_FILE_SUFFIXES)


def download(hub_id: str) -> Path:
    """Fetch configuration and weights of a hub model, or find them in the cache.

    Returns:
        The local folder.

    Raises:
        UsageError: no such model, no access to it, or no connection while it is not cached.
        MissingDependencyError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    except ImportError:
        raise MissingDependencyError(f"{hub_id}: {how_to_install('huggingface_hub')}") from None
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_SAFE))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=_SAFE + _OLD))
    except GatedRepoError:
        raise UsageError(
            f"{hub_id}: access to this model is restricted; ask for it on the hub and log in"
        ) from None
    except RepositoryNotFoundError:
        raise UsageError(f"{hub_id}: no such local folder and no such model on the hub") from None
    except HfHubHTTPError as error:
        raise UsageError(f"{hub_id}: the hub refused the download ({str(error).splitlines()[0]})") from None
    except (
        Exception
    ) as error:  # no connection surfaces as LocalEntryNotFoundError, or as the HTTP client's own error
        if isinstance(error, (MemoryError, NotImplementedError)):
            raise
        raise UsageError(
            f"{hub_id}: no such local folder, and it cannot be downloaded ({type(error).__name__}); "
            "check the name and the connection"
        ) from None
    return folder
