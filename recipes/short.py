"""A small model trained for a minute on synthetic waveforms, for families whose recipes ship no trained one.

Long enough that weights and biases are no longer those of an initialisation, far too short to forecast well: its
verdicts show that a bundle is right, its errors say nothing about the family.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano.synthetic import waveform
from torch import Tensor, nn

from tsmerge_export import families
from tsmerge_export.progress import RichProgress

Loss = Callable[[Any, Tensor, Tensor], Tensor]


def short_trained(folder: Path, config: dict[str, Any], loss: Loss, steps: int = 300) -> Path:
    """Train a model of ``config`` and save it in Hugging Face format, unless ``folder`` holds one already.

    Args:
        loss: (model, contexts ``[B, L]``, futures ``[B, H]``) to a number; L is the config's context, H its horizon.
    """
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    family = families.detect(config)
    model: nn.Module = family.build(config).train()
    context, horizon = family.context(model), family.horizon(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    with RichProgress(("train",)) as progress:
        progress.step("train")
        for step in range(steps):
            series = np.stack([waveform(rng, context + horizon) for _ in range(8)]) + rng.normal(size=(8, 1))
            noisy = torch.from_numpy((series + 0.05 * rng.normal(size=series.shape)).astype(np.float32))
            value = loss(model, noisy[:, :context], noisy[:, context:])
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(value.item())
            progress.update(step + 1, steps)
    model.eval().save_pretrained(folder)  # type: ignore[operator]
    tail = max(1, steps // 10)
    print(f"{folder}: {steps} steps, loss {np.mean(losses[:tail]):.3f} to {np.mean(losses[-tail:]):.3f}")
    return folder
