"""Informer of transformers: as the Time Series Transformer, with ProbSparse attention and distilling convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import InformerConfig, InformerForPrediction
from transformers.models.informer import modeling_informer

from tsmerge_export.families.base import RUNTIMES, Card, Default, Handle, MergePoints, Published
from tsmerge_export.families.hf import ReplacedForward
from tsmerge_export.families.lagged import LaggedFamily
from tsmerge_export.families.lagged_decoder import causal_weights
from tsmerge_export.families.time_series_transformer import DECODER, OUTPUTS
from tsmerge_export.merge.run import MergeRun


def _evenly(low: int, high: int, size: tuple[int, ...]) -> Tensor:
    """``torch.randint`` without chance: evenly spaced numbers, each once where as many are drawn as there are."""
    (count,) = size
    return low + torch.arange(count) * (high - low) // count


class _Torch(SimpleNamespace):
    """torch for ``modeling_informer`` alone, its random numbers apart."""

    randint = staticmethod(_evenly)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside, ProbSparse attention (arXiv 2012.07436, section 3) measures its queries on evenly spaced keys.

    transformers draws them at random, with replacement, as many as there are keys: the measure of a query then hangs on
    chance. Evenly spaced, it is over every key once.
    """
    with patch.object(modeling_informer, "torch", _Torch()):
        yield


def _sparse(layer: Any) -> bool:
    return isinstance(layer.self_attn, modeling_informer.InformerProbSparseAttention)


class Informer(LaggedFamily):
    """``InformerForPrediction``, deterministic."""

    name = "informer"
    default = Default(reason="which merging makes no faster at any length")
    model_class, config_class = InformerForPrediction, InformerConfig
    card = Card(
        (
            (
                "encoder",
                f"`past_values`, `past_observed_mask` and the features that the config has -> {OUTPUTS}",
            ),
            DECODER,
        ),
        "time steps, halved by every distilling convolution; the length is fixed by the config",
        "`attention_type` full: all, in every layer, unmerged before a distilling convolution (a barrier); prob: all "
        "but `--metric key`, in the last layer only, for the decoder",
        RUNTIMES[:2],
        unsupported=(
            "merging before a ProbSparse attention: it ranks queries, and unmerged copies of a token tie",
            "random keys in ProbSparse: every key once instead, in eager too",
            "a cache in the decoder: each step computes the steps before it again, as in `generate`",
            "OpenVINO: it loses the rank of the circular padding before a distilling convolution",
        ),
    )
    published = Published(
        "huggingface/informer-tourism-monthly, with a context of 512",
        {
            "architectures": ["InformerForPrediction"], "model_type": "informer", "prediction_length": 24,
            "context_length": 512, "lags_sequence": [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24],
            "num_time_features": 2, "d_model": 64, "encoder_layers": 6, "decoder_layers": 4,
            "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "attention_type": "prob", "distil": True,
        },
    )  # fmt: skip

    def merging_layers(self, model: Any) -> Sequence[int]:
        """All; but none whose tokens reach another ProbSparse attention."""
        layers = model.model.encoder.layers
        sparse = [index for index, layer in enumerate(layers) if _sparse(layer)]
        return range(max(sparse, default=0), len(layers))

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(self.merging_layers(model)))

    def deterministic(self) -> Any:
        return deterministic()

    def attend(self, attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """ProbSparse: the queries that stand out attend, the others get the sum of the values up to them.

        Which stand out is measured over all steps so far, those after the query too, as in the original.
        """
        if not isinstance(attention, modeling_informer.InformerProbSparseAttention):
            return super().attend(attention, query, key, value)
        scores = query @ key.transpose(2, 3) * attention.scaling
        measure = scores.amax(-1) - scores.mean(-1)
        order = torch.arange(scores.shape[-1])
        mine, other = measure[..., :, None], measure[..., None, :]
        ahead = (other > mine) | ((other == mine) & (order[None, :] < order[:, None]))
        steps = torch.ones_like(order).sum().to(measure.dtype)  # in the graph: the number is not known before
        chosen = ahead.sum(-1) < attention.factor * steps.log1p().ceil()
        return torch.where(chosen[..., None], causal_weights(scores) @ value, value.cumsum(2))

    def keys_are_read(self, layer: Any) -> bool:
        return not _sparse(layer)

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        def without_chance(forward: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with deterministic():
                    return forward(*args, **kwargs)

            return wrapped

        sparse = [
            module
            for module in model.modules()
            if isinstance(module, modeling_informer.InformerProbSparseAttention)
        ]
        forward = modeling_informer.InformerProbSparseAttention.forward
        return [
            *super().instrument(model, run),
            *(ReplacedForward(module, without_chance(forward.__get__(module))) for module in sparse),
        ]
