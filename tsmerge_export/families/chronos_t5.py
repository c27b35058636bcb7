"""Chronos (T5): one token per time step through a T5 encoder; an autoregressive decoder draws sample paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from chronos.chronos import ChronosConfig, ChronosTokenizer
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from tsmerge_export.families.base import (
    STEPS,
    Arrays,
    Card,
    Component,
    Hints,
    MergePoints,
    Published,
    TensorSpec,
)
from tsmerge_export.families.hf import TransformersFamily
from tsmerge_export.families.objective import Batch, Objective, Predicted, Series
from tsmerge_export.families.t5_decoder import Cross, Decoder
from tsmerge_export.families.t5_generation import T5Generation
from tsmerge_export.families.t5_stack import (
    exportable,
    instrument_decoder,
    instrument_encoder,
    weighed_cross_attention,
)
from tsmerge_export.forecast.tokenizer import settings_of
from tsmerge_export.merge.applied import run_of
from tsmerge_export.merge.run import MergeRun

_QUANTILES = tuple(i / 10 for i in range(1, 10))


def _chronos_config(model: Any) -> ChronosConfig:
    return ChronosConfig(**model.config.chronos_config)


def tokenizer(model: Any) -> ChronosTokenizer:
    """The tokenizer that the model's config describes (mean scaling, uniform bins)."""
    return _chronos_config(model).create_tokenizer()


class _EncoderModule(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, L]`` int64 twice -> ``last_hidden_state [B, N, D]``, mask and log sizes ``[B, N]``; here N = L."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        # All 0 as long as every token stands for itself. Computed from the mask, it stays an axis of tokens.
        log_size = attention_mask.to(hidden.dtype).clamp(min=1).log()
        return hidden, attention_mask.clone(), log_size


class _Encoder(Component):
    name = "encoder"

    def __init__(self, model: Any) -> None:
        self.inputs = tuple(
            TensorSpec(name, "int64", ("batch", "length")) for name in ("input_ids", "attention_mask")
        )
        # "tokens", not "length": these outputs stay merged, and the decoder's mask follows.
        self.outputs = (
            TensorSpec("last_hidden_state", "float32", ("batch", "tokens", int(model.config.d_model))),
            TensorSpec("encoder_mask", "int64", ("batch", "tokens")),
            TensorSpec("encoder_log_size", "float32", ("batch", "tokens")),
        )
        self.hints = Hints(
            token_mask="encoder_mask",
            token_log_size="encoder_log_size",
            protect_last=int(_chronos_config(model).use_eos_token),
        )

    def module(self, model: Any) -> nn.Module:
        return _EncoderModule(exportable(model).encoder)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        hidden = model.encoder(**inputs).last_hidden_state
        run = run_of(model)
        mask = inputs["attention_mask"]
        mask = mask if run is None else run.mask(mask)
        log_size = None if run is None else run.log_size()
        return {
            "last_hidden_state": hidden,
            "encoder_mask": mask,
            "encoder_log_size": torch.zeros(mask.shape) if log_size is None else log_size,
        }

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        ids, mask, _ = tokenizer(model).context_input_transform(
            torch.from_numpy(np.array(series, np.float32))
        )
        return {"input_ids": ids.numpy(), "attention_mask": mask.numpy().astype(np.int64)}


class _Tokens(Objective):
    """Logits of the future's tokens under teacher forcing: the decoder is given the true ones before each.

    A token a step makes windows dear, and every step of the future has a label and the teacher's whole distribution:
    few windows make a gradient (docs/distill.md, How it works).
    """

    kind = "logits"
    windows, rate = 16, 2.0

    def __init__(self, generation: T5Generation, horizon: int) -> None:
        self._generation, self.horizon = generation, horizon

    def feed(
        self, model: Any, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """Tokens of the context, and the decoder's: the start, then the labels. A missing step is the pad token, as
        upstream trains, and no label. The end of the forecast, which its length tells, is none either."""
        config, tokens = _chronos_config(model), tokenizer(model)
        ids, mask, scale = tokens.context_input_transform(torch.from_numpy(np.array(context, np.float32)))
        found, known = tokens.label_input_transform(torch.from_numpy(np.array(future, np.float32)), scale)
        labels, known = found[:, : self.horizon], known[:, : self.horizon]
        given = torch.where(known, labels, config.pad_token_id)[:, :-1]
        start = torch.full_like(labels[:, :1], int(model.config.decoder_start_token_id))
        inputs = {
            "input_ids": ids.numpy(),
            "attention_mask": mask.numpy().astype(np.int64),
            "tokens": torch.cat([start, given], dim=1)[:, None].numpy(),
        }
        return inputs, torch.where(known, labels, -100).numpy()

    def outputs(self, model: Any, batch: Batch) -> Predicted:
        logits = self._generation.eager(model, batch.inputs)["logits"][:, 0]
        return Predicted(self.kind, {"logits": logits}, batch.unit)


class ChronosT5(TransformersFamily):
    """Amazon's Chronos on T5 (``T5ForConditionalGeneration`` with a ``chronos_config``)."""

    name = "chronos-t5"
    default = STEPS
    hides_padding = True
    model_class, config_class, needs = T5ForConditionalGeneration, T5Config, ("chronos_config",)
    card = Card(
        (
            (
                "encoder",
                "`input_ids`, `attention_mask` -> `last_hidden_state`, `encoder_mask`, `encoder_log_size`",
            ),
            ("cross", "these -> keys and values of every layer's cross-attention"),
            ("decoder", "one step"),
        ),
        "time steps",
        "all, in the encoder",
        unsupported=("merging in the decoder: one token a step",),
    )
    published = Published(
        "amazon/chronos-t5-small",
        {
            "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 512, "d_ff": 2048,
            "d_kv": 64, "num_heads": 8, "num_layers": 6, "num_decoder_layers": 6, "vocab_size": 4096,
            "feed_forward_proj": "relu", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
            "chronos_config": {
                "tokenizer_class": "MeanScaleUniformBins",
                "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}, "n_tokens": 4096,
                "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
                "model_type": "seq2seq", "context_length": 512, "prediction_length": 64, "num_samples": 20,
                "temperature": 1.0, "top_k": 50, "top_p": 1.0,
            },
        },
    )  # fmt: skip

    def matches(self, config: Mapping[str, Any]) -> bool:
        return super().matches(config) and "chronos_config" in config

    def components(self, model: Any) -> tuple[Component, ...]:
        return _Encoder(model), Cross(model), Decoder(model)

    def generation(self, model: Any) -> T5Generation:
        return T5Generation(model, _Encoder(model), self.pipeline(model), self.quantile_levels(model))

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(len(model.encoder.block), protect_last=int(_chronos_config(model).use_eos_token))

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument_encoder(model.encoder, run) + instrument_decoder(model.decoder, run)

    def horizon(self, model: Any) -> int:
        return int(_chronos_config(model).prediction_length)

    def context(self, model: Any) -> int:
        return int(_chronos_config(model).context_length)

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return _QUANTILES

    def objective(self, model: Any) -> Objective:
        return _Tokens(self.generation(model), self.horizon(model))

    def pipeline(self, model: Any) -> dict[str, Any]:
        config = _chronos_config(model)
        sampling = ("num_samples", "temperature", "top_k", "top_p")
        return super().pipeline(model) | {
            "tokenizer": settings_of(tokenizer(model).centers.numpy(), vars(config)),
            "decoder_start_token_id": int(model.config.decoder_start_token_id),
            **{name: getattr(config, name) for name in sampling},
        }

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """See :meth:`Family.forecast`. The encoder is the exported one, the decoder the original module."""
        config = _chronos_config(model)
        tokens = tokenizer(model)
        ids, mask, scale = tokens.context_input_transform(torch.from_numpy(np.array(series, np.float32)))
        encoded = run({"input_ids": ids.numpy(), "attention_mask": mask.numpy().astype(np.int64)})
        weighed = weighed_cross_attention(model.decoder, torch.from_numpy(encoded["encoder_log_size"]))
        with torch.random.fork_rng(devices=[]), torch.no_grad(), weighed:
            torch.manual_seed(seed)
            drawn = model.generate(
                encoder_outputs=BaseModelOutput(
                    last_hidden_state=torch.from_numpy(encoded["last_hidden_state"])
                ),
                attention_mask=torch.from_numpy(encoded["encoder_mask"]),
                min_new_tokens=config.prediction_length,
                max_new_tokens=config.prediction_length,
                do_sample=True,
                num_return_sequences=config.num_samples,
                eos_token_id=config.eos_token_id,
                pad_token_id=config.pad_token_id,
                temperature=config.temperature,
                top_k=config.top_k,
                top_p=config.top_p,
            )
        samples = drawn[:, -config.prediction_length :].reshape(len(series), config.num_samples, -1)
        paths = tokens.output_transform(samples, scale)
        return torch.quantile(paths, torch.tensor(_QUANTILES), dim=1).transpose(0, 1).float().numpy()
