"""Mamba-2 over binned values of a series: a state-space model, one token per time step, merging between blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import Mamba2Config, Mamba2ForCausalLM

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays, Card, Component, Hints, MergePoints, Published, TensorSpec
from tsmerge_export.families.hf import TransformersFamily, detached_twin
from tsmerge_export.merge.run import MergeRun

_QUANTILES = tuple(i / 10 for i in range(1, 10))
# Of ``series_config`` in config.json: the range of the bins in multiples of the mean absolute value.
_DEFAULTS = {"low_limit": -15.0, "high_limit": 15.0, "context_length": 512}


def _setting(model: Any, name: str) -> float:
    return float((getattr(model.config, "series_config", None) or {}).get(name, _DEFAULTS[name]))


def _number(value: Any) -> Any:
    """A number of config.json, where transformers writes infinity as ``{"__float__": "Infinity"}``."""
    return float(value["__float__"]) if isinstance(value, Mapping) and "__float__" in value else value


def _centres(model: Any) -> NDArray[np.float64]:
    """The value that each token stands for, in multiples of the scale: ``vocab_size`` of them, evenly spaced."""
    return np.linspace(_setting(model, "low_limit"), _setting(model, "high_limit"), model.config.vocab_size)


def scaled(series: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Series ``[B, L]`` divided by their mean absolute value ``[B, 1]`` (1 where that is 0 or there is none).

    A missing value (NaN) is the last one seen, 0 before the first.
    """
    values = np.asarray(series, np.float64)
    seen = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(values.shape[1]), 0), axis=1)
    filled = np.nan_to_num(np.take_along_axis(values, last, axis=1), nan=0.0)
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    scale = np.abs(np.where(seen, values, 0)).sum(1, keepdims=True) / count
    scale = np.where(scale > 0, scale, 1.0)
    return filled / scale, scale


class _ExportModule(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """``[B, L]`` int64 -> logits ``[B, L, V]``."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


class _Model(Component):
    name = "model"

    def __init__(self, model: Any) -> None:
        self.inputs = (TensorSpec("input_ids", "int64", ("batch", "length")),)
        # "length": one row of logits for every original token.
        self.outputs = (TensorSpec("logits", "float32", ("batch", "length", int(model.config.vocab_size))),)
        self.hints = Hints(protect_last=1)

    def module(self, model: Any) -> nn.Module:
        return _ExportModule(detached_twin(model))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": model(input_ids=inputs["input_ids"], use_cache=False).logits}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        values, _ = scaled(series[:, -int(_setting(model, "context_length")) :])
        centres = _centres(model)
        step = centres[1] - centres[0]
        ids = np.rint((np.clip(values, centres[0], centres[-1]) - centres[0]) / step)
        return {"input_ids": ids.astype(np.int64)}

    def example(self, model: Any, batch: int, length: int, seed: int = 0) -> Arrays:
        """Never a whole number of chunks: for those the module skips a cut, and an exporter would skip it for all."""
        length = min(length, int(_setting(model, "context_length")))
        if length % model.config.chunk_size == 0:
            length = max(1, length - 1)
        return super().example(model, batch, length, seed)


class Mamba2(TransformersFamily):
    """``Mamba2ForCausalLM`` of transformers, each token a bin of the scaled series; it forecasts one step."""

    name = "mamba2"
    model_class, config_class = Mamba2ForCausalLM, Mamba2Config
    card = Card(
        (("model", "`input_ids` -> `logits` of every time step"),),
        "time steps, binned",
        "all, between blocks",
        ("ONNX Runtime",),
        ("`--metric key` and `--prop-attn`: they need attention",),
    )
    published = Published(
        "state-spaces/mamba2-130m, over 1,024 bins",
        {
            "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "vocab_size": 1024, "hidden_size": 768,
            "num_heads": 24, "head_dim": 64, "state_size": 128, "n_groups": 1, "num_hidden_layers": 24,
            "chunk_size": 256, "series_config": {"context_length": 4096},
        },
    )  # fmt: skip

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        limit = [_number(end) for end in config.get("time_step_limit", (0.0, math.inf))]
        return super().build({**config, "time_step_limit": limit})

    def config_of(self, model: Any) -> dict[str, Any]:
        config = super().config_of(model)
        config["time_step_limit"] = [
            end if math.isfinite(end) else {"__float__": "Infinity"} for end in config["time_step_limit"]
        ]
        return config

    def components(self, model: Any) -> tuple[Component, ...]:
        return (_Model(model),)

    def merge_points(self, model: Any) -> MergePoints:
        # The last token gives the forecast: it is neither dropped nor mixed.
        return MergePoints(len(model.backbone.layers), protect_last=1)

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        """Merge between the blocks; give every original token its output behind the last norm."""
        if run.prop_attn:
            raise UnsupportedError(
                "--prop-attn needs attention, and this state-space model has none; leave it out"
            )

        def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            mask = kwargs.get("attention_mask")
            run.begin(None if mask is None else (mask != 0).float())

        def align(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            mask = kwargs.get("attention_mask")
            return args, kwargs if mask is None else {**kwargs, "attention_mask": run.align(mask, 1)}

        def merge(layer: int) -> Any:
            return lambda _module, _args, output: run.merge(layer, output)

        backbone = model.backbone
        handles = [backbone.register_forward_pre_hook(begin, with_kwargs=True)]
        for layer, block in enumerate(backbone.layers):
            handles.append(block.register_forward_pre_hook(align, with_kwargs=True))
            handles.append(block.register_forward_hook(merge(layer)))
        handles.append(
            backbone.norm_f.register_forward_hook(lambda _module, _args, output: run.unmerge(output))
        )
        return handles

    def horizon(self, model: Any) -> int:
        return 1

    def context(self, model: Any) -> int:
        return int(_setting(model, "context_length"))

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return _QUANTILES

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        _, scale = scaled(series[:, -self.context(model) :])
        logits = run(_Model(model).from_series(model, series))["logits"][:, -1].astype(np.float64)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        share = weights.cumsum(-1) / weights.sum(-1, keepdims=True)
        bins = np.stack([(share >= level).argmax(-1) for level in _QUANTILES], 1)
        return (_centres(model)[bins] * scale)[..., None].astype(np.float32)
