"""Weights of a model folder in Hugging Face format, whole or in shards."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tsmerge_export.checkpoint.config_file import read_json_object
from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.checkpoint.safetensors_file import check_safetensors, read_safetensors
from tsmerge_export.errors import UsageError
from tsmerge_export.files.paths import is_inner_name

if TYPE_CHECKING:
    from torch import Tensor

SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"


def read_folder_weights(folder: Path) -> dict[str, Tensor]:
    """The state_dict in ``folder``: safetensors, or ``pytorch_model.bin`` (weights_only) where there is nothing else.

    Raises:
        UsageError: no weights, a missing or corrupt shard, an index that points outside, above the size cap.
    """
    for name in (SAFETENSORS, PICKLED):
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return _read([folder / name])
        if index.is_file():
            return _read(shard_paths(index))
    raise UsageError(f"{folder}: no {SAFETENSORS} (nor shards, nor {PICKLED}) in this folder")


def shard_paths(index: Path) -> list[Path]:
    """The shard files that an index names, each a plain file name inside the index's folder.

    Raises:
        UsageError: the index is unreadable, or a name leaves the folder.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UsageError(f"{index}: has no weight_map; this is not a shard index")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not is_inner_name(name) or PurePosixPath(name).name != name:
            raise UsageError(
                f"{index}: shard {name!r} is not a plain file name; shards must lie beside their index"
            )
        if not (index.parent / name).is_file():
            raise UsageError(f"{index.parent / name}: this shard is missing; download it again")
    return [index.parent / name for name in names]


def _read(files: list[Path]) -> dict[str, Tensor]:
    pickled = [file for file in files if file.suffix == ".bin"]
    # Every file is checked before the first one is loaded.
    total = sum(file.stat().st_size if file in pickled else check_safetensors(file) for file in files)
    check_model_bytes(str(files[0].parent), total)
    weights: dict[str, Tensor] = {}
    for file in files:
        part = _read_pickled(file) if file in pickled else read_safetensors(file)
        twice = sorted(weights.keys() & part.keys())
        if twice:
            raise UsageError(f"{file}: weight {twice[0]} is also in another shard")
        weights.update(part)
    return weights


def _read_pickled(file: Path) -> dict[str, Tensor]:
    from tsmerge_export.checkpoint.torch_file import bare_state_dict, read_torch_file

    return bare_state_dict(read_torch_file(file), file)
