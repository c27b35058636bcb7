"""The resumable state of a training run and the files it leaves, each written beside and renamed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from .errors import UserError
from .family import Architecture

STATE_FILE = "training-state.pt"
MODEL_FILES = ("config.json", "model.safetensors")


@dataclass
class Progress:
    """Where a run stands. `best` is the lowest validation figure so far, `losses` one mean per interval."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)


def save_state(
    folder: Path,
    identity: dict[str, Any],
    progress: Progress,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> None:
    """Model, its running average, optimizer, step and both random generators, into `training-state.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / (STATE_FILE + ".part")
    torch.save(
        {
            # JSON for what is not a tensor: the weights_only loader then has nothing to object to.
            "identity": json.dumps(identity, sort_keys=True),
            "progress": json.dumps(asdict(progress)),
            "numpy_rng": json.dumps(rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        beside,
    )
    os.replace(beside, folder / STATE_FILE)


def load_state(
    folder: Path,
    identity: dict[str, Any],
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> Progress:
    """Restores what `save_state` wrote; refuses a state of another family, size, seed or data."""
    path = folder / STATE_FILE
    if not path.is_file():
        raise UserError(f"--resume: {path} does not exist; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
        known = json.loads(state["identity"])
    except Exception as exc:  # a damaged file can raise nearly anything
        raise UserError(f"--resume: {path} cannot be read; start again without --resume") from exc
    differing = sorted(key for key in identity if known.get(key) != identity[key])
    if differing:
        raise UserError(
            f"--resume: {path} was made with another {', '.join(differing)}; use the same settings"
        )
    model.load_state_dict(state["model"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    rng.bit_generator.state = json.loads(state["numpy_rng"])
    return Progress(**json.loads(state["progress"]))


def save_model(folder: Path, model: nn.Module) -> None:
    """config.json and model.safetensors as upstream loads them."""
    assert isinstance(model, PreTrainedModel)
    beside = folder / ".model.part"
    beside.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(beside)
    for file in MODEL_FILES:
        os.replace(beside / file, folder / file)
    for rest in beside.iterdir():
        rest.unlink()
    beside.rmdir()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Indented JSON with a final newline."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)


def identity_of(
    family: str, arch: Architecture, seed: int, synthetic_only: bool, series: int
) -> dict[str, Any]:
    """The settings that a resumed run has to share with the run it continues."""
    return {
        "family": family,
        "architecture": asdict(arch),
        "seed": seed,
        "synthetic_only": synthetic_only,
        "synthetic_series": series,
    }
