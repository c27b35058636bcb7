"""Mamba-2 over binned values of a series: a state-space model, one token per time step, merging between blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import Mamba2Config, Mamba2ForCausalLM

from tsmerge_export.families.base import STEPS, Published
from tsmerge_export.families.state_space import StateSpaceFamily, binned_card


def _number(value: Any) -> Any:
    """A number of config.json, where transformers writes infinity as ``{"__float__": "Infinity"}``."""
    return float(value["__float__"]) if isinstance(value, Mapping) and "__float__" in value else value


def readable_limit(limit: Iterable[Any]) -> list[Any]:
    """``time_step_limit`` as the config class takes it."""
    return [_number(end) for end in limit]


def stored_limit(limit: Iterable[float]) -> list[Any]:
    """``time_step_limit`` as config.json holds it, which knows no infinity."""
    return [end if math.isfinite(end) else {"__float__": "Infinity"} for end in readable_limit(limit)]


class Mamba2(StateSpaceFamily):
    """``Mamba2ForCausalLM`` of transformers; its chunked scan exports as it is."""

    name = "mamba2"
    default = STEPS
    model_class, config_class = Mamba2ForCausalLM, Mamba2Config
    card = binned_card("time steps, binned")
    published = Published(
        "state-spaces/mamba2-130m, over 1,024 bins",
        {
            "architectures": ["Mamba2ForCausalLM"], "model_type": "mamba2", "vocab_size": 1024, "hidden_size": 768,
            "num_heads": 24, "head_dim": 64, "state_size": 128, "n_groups": 1, "num_hidden_layers": 24,
            "chunk_size": 256, "series_config": {"context_length": 4096},
        },
    )  # fmt: skip

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        limit = readable_limit(config.get("time_step_limit", (0.0, math.inf)))
        return super().build({**config, "time_step_limit": limit})

    def config_of(self, model: Any) -> dict[str, Any]:
        config = super().config_of(model)
        config["time_step_limit"] = stored_limit(config["time_step_limit"])
        return config
