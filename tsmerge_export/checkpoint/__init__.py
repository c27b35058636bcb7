"""Model files in, float32 modules out: the only code that reads model files.

Model files are untrusted. Weights come from safetensors or from ``torch.load(weights_only=True)``; nothing in a
file is executed, shard names stay inside their folder, and sizes are capped (:mod:`.limits`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.bundle.distillation import FORMAT as DISTILLATION
from tsmerge_export.bundle.distillation import RECORD, REMEDY, distillation_of
from tsmerge_export.checkpoint import adapter
from tsmerge_export.checkpoint.config_file import check_config, read_config, read_json_object
from tsmerge_export.checkpoint.folder import read_folder_weights
from tsmerge_export.checkpoint.hub import download, is_hub_id
from tsmerge_export.checkpoint.safetensors_file import read_safetensors
from tsmerge_export.console.one_line import by_fields
from tsmerge_export.console.quiet import quiet
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.settings.trained import Trained, trained_in
from tsmerge_export.typed import plain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tsmerge_export.families import Family

__all__ = ["IN_MEMORY", "LoadedModel", "check_source", "load_model", "save_checkpoint"]

#: ``LoadedModel.source`` of a module that the caller gave.
IN_MEMORY = "a model in memory"
_GRAPHS = (".onnx", ".pt2")
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to export.

    Attributes:
        model: the original module, every parameter and floating buffer float32, in eval mode, on the CPU.
        family: name of its family.
        config: the configuration it was built from.
        source: what the user gave: path or hub id.
        distillation: of a folder that a distillation wrote, what ``distillation.json`` says, its types checked.
    """

    model: nn.Module
    family: str
    config: dict[str, Any] = field(repr=False)
    source: str
    distillation: dict[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return by_fields(self)

    @property
    def trained(self) -> Trained | None:
        """The merge settings that the weights were trained for; None where the config names none."""
        return trained_in(self.config, f"{self.source}: config.json")


def load_model(
    source: str | Path,
    *,
    family: str | None = None,
    config: str | Path | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model from a folder, a hub id or a weights file.

    Args:
        source: folder in Hugging Face format (``config.json`` with ``model.safetensors``, shards and their index,
            or ``pytorch_model.bin``), or of a LoRA adapter (``adapter_config.json``), merged into its base; hub
            id ``org/name``; ``.pt`` file written by :func:`save_checkpoint`; ``.pt``
            or ``.safetensors`` file that holds a bare state_dict, together with ``config``.
        family: name of the family; by default found from the configuration.
        config: path of a ``config.json``, for weights that come without one.
        trust_remote_code: accept a configuration that refers to code of its own (``auto_map``). That code is
            still not run: the model is built by its family.

    Returns:
        :class:`LoadedModel`, float32 and in eval mode.

    Raises:
        UsageError: missing, truncated, unreadable or unsafe file; weights that do not fit the configuration.
        UnsupportedError: a format or family that this version cannot load.
        MissingDependencyError: the hub client is not installed.
    """
    check_source(source)
    path = Path(source)
    if path.suffix.lower() in _GRAPHS and path.is_file():
        raise UnsupportedError(
            f"{source}: only tsmerge-export and tsmerge validate take {path.suffix} files; give a checkpoint here"
        )
    extra = None if config is None else Path(config)
    path = path if path.exists() else download(str(source))
    settings, weights = _read_folder(path, extra) if path.is_dir() else _read_file(path, extra)
    check_config(settings, str(source), trust_remote_code)
    trained_in(settings, f"{source}: config.json")  # what cannot be read is said before anything is built
    loaded = _build(settings, weights, family, str(source))
    return replace(loaded, distillation=_record(path)) if path.is_dir() else loaded


def _record(folder: Path) -> dict[str, Any] | None:
    """How the weights in a folder were distilled; None where nothing of ours says it. Raises UsageError."""
    file = folder / RECORD
    if not file.is_file():
        return None
    content = read_json_object(file)
    if content.get("format") != DISTILLATION:
        return None
    try:
        found: dict[str, Any] = plain(distillation_of(content, file).checked())
        json.dumps(found, allow_nan=False)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise UsageError(f"{file}: {error}" if str(file) not in str(error) else str(error)) from None
        raise UsageError(f"{file}: holds a number that JSON does not have; {REMEDY}") from None
    return found


def check_source(source: str | Path) -> None:
    """What can be said about a source at once, without reading it.

    Raises:
        UsageError: nothing there, and no hub id.
    """
    path = Path(source)
    if not path.exists() and (path.suffix.lower() in _GRAPHS or not is_hub_id(str(source))):
        raise UsageError(f"{source}: no such file or folder (a hub id looks like org/name)")


def _read_folder(path: Path, extra: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    own = path / "config.json"
    if own.is_file() and extra is not None:
        raise UsageError(f"--config {extra}: {path} has a config.json of its own; leave --config out")
    if not own.is_file() and (path / "manifest.json").is_file():
        raise UsageError(f"{path}: is a bundle; give the model that it was made from")
    adapted = (path / adapter.CONFIG).is_file()
    if adapted and (own.is_file() or extra is not None):
        raise UsageError(
            f"{path}: holds {adapter.CONFIG} beside a model's config; move the adapter, or the model, to a folder of "
            "its own"
        )
    if adapted:
        return _read_adapter(path)
    if not own.is_file() and extra is None:
        raise UsageError(f"{path}: no config.json in this folder; give a model folder in Hugging Face format")
    settings = read_config(own if extra is None else extra)
    return settings, read_folder_weights(path)


def _read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A base model with a LoRA adapter merged into it."""
    found = adapter.read_adapter(folder)
    base = Path(found.base)
    try:
        here = base.is_dir()
    except OSError:  # a name that no file can have
        here = False
    if not here:
        if not is_hub_id(found.base):
            raise UsageError(
                f"{found.label}: its base {found.base!r} is no folder here and no hub id; write its path there"
            )
        base = download(found.base)
    if not (base / "config.json").is_file():
        raise UsageError(
            f"{found.label}: its base {found.base!r} holds no config.json; an adapter needs a whole model"
        )
    settings, weights = _read_folder(base, None)
    return settings, adapter.merged(found, weights)


def _read_file(path: Path, extra: Path | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _with_config(path, extra), read_safetensors(path)
    if suffix not in _PICKLES:
        raise UsageError(f"{path}: not a model; give a folder in Hugging Face format, a hub id or a .pt file")
    from tsmerge_export.checkpoint.torch_file import read_torch_file, split_checkpoint

    content = read_torch_file(path)
    settings, weights = split_checkpoint(content, path)
    if settings is None:
        return _with_config(path, extra), weights
    if extra is not None:
        raise UsageError(f"--config {extra}: {path} holds its own config; leave --config out")
    return settings, weights


def _with_config(path: Path, extra: Path | None) -> dict[str, Any]:
    if extra is None:
        raise UsageError(f"{path}: holds weights without a config; add --config config.json")
    return read_config(extra)


def _build(
    settings: dict[str, Any], weights: Mapping[str, Tensor], family: str | None, source: str
) -> LoadedModel:
    import torch

    from tsmerge_export import families
    from tsmerge_export.checkpoint.weights import load_weights

    try:
        chosen: Family = families.get(family) if family is not None else families.detect(settings)
    except UnsupportedError as error:
        raise UnsupportedError(f"{source}: {error}") from None
    try:
        # Random initialisation must not disturb the caller's generator.
        # What libraries think of a config is either an error or nothing that concerns the result.
        with torch.random.fork_rng(devices=[]), quiet("transformers"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = chosen.build(settings)
    except (UsageError, UnsupportedError) as error:
        raise type(error)(f"{source}: {error}") from None
    except TsmergeError:
        raise
    except Exception as error:  # only the config decides what happens here, and it is the user's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"{source}: its config does not describe a {chosen.name} model: {reason}") from error
    for old, new in chosen.weight_names.items():
        weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    load_weights(model, weights, source)
    return LoadedModel(model.float().eval(), chosen.name, settings, source)


def save_checkpoint(model: nn.Module, path: str | Path) -> Path:
    """Write a model as one ``.pt`` file that ``tsmerge-export`` reads: config and state_dict, no pickled code.

    Args:
        model: a module of a known family, or a Chronos pipeline around one.
        path: the file to write (written beside and renamed; an existing file is replaced).

    Returns:
        The path.

    Raises:
        UsageError: the path cannot be written.
        UnsupportedError: the model belongs to no known family.
    """
    from tsmerge_export.checkpoint.torch_file import write_checkpoint

    return write_checkpoint(model, Path(path))
