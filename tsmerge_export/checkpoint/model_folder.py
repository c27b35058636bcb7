"""Writing a model as a folder in Hugging Face format, the one that its family reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.console.quiet import quiet

if TYPE_CHECKING:
    from torch import nn

#: What :func:`write_model_folder` may write.
FILES = ("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json")


def write_model_folder(model: nn.Module, config: Mapping[str, Any], folder: Path) -> None:
    """Write ``config.json`` and the weights into an existing folder.

    Args:
        model: float32. config: as :class:`~tsmerge_export.checkpoint.LoadedModel` has it; what it says of the weights'
            type is set to float32.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save_file
    from transformers import PreTrainedModel

    if isinstance(model, PreTrainedModel):
        with quiet("transformers"), _no_bar():
            model.save_pretrained(folder)
    else:
        tensors, places = {}, set()
        for name, tensor in model.state_dict().items():
            place = (tensor.data_ptr(), tensor.shape) if tensor.numel() else name
            if place not in places:  # one of those that share: safetensors knows no second name
                tensors[name] = tensor.detach().cpu().contiguous().clone()
            places.add(place)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    whole = dict(config)
    for name in ("dtype", "torch_dtype"):
        if name in whole:
            whole[name] = "float32"
    text = json.dumps(whole, indent=2, sort_keys=True, default=str) + "\n"
    config_file = folder / "config.json"
    config_file.write_text(text, encoding="utf-8")
    for file in folder.glob("*.safetensors"):  # written for nobody but their owner
        file.chmod(config_file.stat().st_mode & 0o777)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep a bar of transformers' off the terminal; it would break into ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
