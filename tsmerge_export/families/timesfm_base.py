"""What the versions of TimesFM have in common: padded series cut to patches, causal attention over them, one component.

The last token alone gives the forecast, so it takes no part in merging.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays, Component, Hints, MergePoints, Run, TensorSpec
from tsmerge_export.families.hf import TransformersFamily, detached_twin
from tsmerge_export.families.objective import Objective, Quantiles
from tsmerge_export.forecast import timesfm
from tsmerge_export.forecast.history import filled

#: Texts of the families' cards.
TOKENS = "patches, causal; the last one is protected"
UNSUPPORTED = "horizons beyond the model's own; other runtimes: not tried"
_LEAST = torch.finfo(torch.float32).min


def in_patches(context: Tensor, padding: Tensor, longest: int, patch: int) -> tuple[Tensor, Tensor]:
    """The last ``longest`` steps of ``[B, L]``, padded on the left to whole patches ``[B, N, patch]``; its padding.

    For an exporter: no branch on the length.
    """
    batch, length = context.shape
    used = torch.sym_min(length, longest)
    patches = (used + patch - 1) // patch
    missing = torch.zeros((batch, patches * patch - used))
    cut, pad = (
        torch.cat([missing + fill, each[:, length - used :]], 1).reshape(batch, patches, patch)
        for each, fill in ((context, 0.0), (padding, 1.0))
    )
    return cut * (1 - pad), pad


def as_ragged(context: Tensor, padding: Tensor, longest: int, patch: int) -> dict[str, Any]:
    """Arguments of the original's forward for padded series: one tensor each, and the length it pads them to."""
    used = min(context.shape[1], longest)
    rows = [row[pad == 0] for row, pad in zip(context, padding, strict=True)]
    return {"past_values": rows, "forecast_context_len": -(-used // patch) * patch}


def causal_biases(real: Tensor) -> tuple[Tensor, Tensor]:
    """To add to attention scores, for tokens that are real where ``real [B, N]`` is 1: ``[N, N]`` hides later tokens,
    ``[B, 1, 1, N]`` padding. Their sum may be minus infinity, but no whole row is: the own token is hidden once at
    most.
    """
    order = torch.arange(real.shape[1])
    later = torch.where(order[None, :] > order[:, None], _LEAST, 0.0)
    return later, ((1 - real) * _LEAST)[:, None, None]


def projected(attention: Any, x: Tensor, head: int) -> tuple[Tensor, ...]:
    """Queries, keys and values ``[B, H, N, head]`` of ``x [B, N, D]``."""
    shape = (*x.shape[:2], -1, head)
    return tuple(
        f(x).reshape(shape).transpose(1, 2) for f in (attention.q_proj, attention.k_proj, attention.v_proj)
    )


def attended(query: Tensor, key: Tensor, value: Tensor, biases: tuple[Tensor, Tensor]) -> Tensor:
    """``[B, H, N, head]`` three times and :func:`causal_biases` -> ``[B, N, H * head]``."""
    later, padded = biases
    weights = (query @ key.transpose(2, 3) + later + padded).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class TimesFmModel(Component):
    """``context``, ``padding`` ``[B, L]`` float32 (1 is padding), and what a version has more, -> ``predictions``
    ``[B, H, 1 + Q]``, the mean and the quantiles."""

    name = "model"
    hints = Hints(token_mask="token_mask", protect_last=1)

    def __init__(self, model: Any, export: type[nn.Module], *more: TensorSpec) -> None:
        """``export(model)`` is the module to export; it also returns the token mask ``[B, N]``. ``more`` inputs."""
        rows = ("batch", "length")
        self._export = export
        self.inputs = (TensorSpec("context", "float32", rows), TensorSpec("padding", "float32", rows), *more)
        shape = ("batch", int(model.config.horizon_length), 1 + len(model.config.quantiles))
        self.outputs = (TensorSpec("predictions", "float32", shape),)

    def module(self, model: Any) -> nn.Module:
        return self._export(detached_twin(model))

    def ragged(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """The series as the original's forward takes them, see :func:`as_ragged`."""
        config = model.config
        return as_ragged(inputs["context"], inputs["padding"], config.context_length, config.patch_length)

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        context, padding = filled(series)
        return {"context": context, "padding": padding}


class TimesFmFamily(TransformersFamily):
    """A version of TimesFM; it names its classes, its decoder and its component."""

    @abstractmethod
    def decoder(self, model: Any) -> Any:
        """The module whose ``layers`` merge."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """See :meth:`Family.build`."""
        model: Any = super().build(config)
        own = model.config
        if own.context_length % own.patch_length:
            raise UsageError(
                f"config.json: context_length {own.context_length} is no multiple of patch_length {own.patch_length}"
            )
        return model

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(self.decoder(model).layers), protect_last=1)

    def horizon(self, model: Any) -> int:
        return int(model.config.horizon_length)

    def context(self, model: Any) -> int:
        return int(model.config.context_length)

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return tuple(model.config.quantiles)

    def objective(self, model: Any) -> Objective:
        """The quantiles of one pass; the mean beside them is not trained."""
        return Quantiles(
            self.components(model)[0],
            self.horizon(model),
            self.quantile_levels(model),
            lambda outputs: outputs["predictions"][..., 1:].transpose(1, 2),
        )

    def pipeline(self, model: Any) -> dict[str, Any]:
        return super().pipeline(model) | {
            "quantiles": list(self.quantile_levels(model)),
            "patch_size": int(model.config.patch_length),
        }

    def forecast(
        self, model: Any, run: Run, series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """See :func:`~tsmerge_export.forecast.timesfm.quantiles`."""
        return timesfm.quantiles(run, self.pipeline(model), series)
