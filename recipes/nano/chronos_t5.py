"""Chronos-T5 nano: a T5 over value tokens, initialised so that it knows what values and phases are.

A small T5 on two cores spends its whole budget finding out that token 500 lies next to token 501 and where in
the day it stands: cross-attention has no position bias. Both are given as the starting point, and trained on:

- token embeddings are Fourier features of the bin's value (log-spaced frequencies), so near values are near;
- the encoder reads its distance to the end of the series from the EOS token, the decoder its step from the
  start token, both through the relative attention bias, as cosine and sine of two periods (24 and 8 steps);
- the first cross-attention matches these codes and copies the value: roughly a soft seasonal naive forecast.

The format is that of Chronos (arXiv 2403.07815): mean scaling, uniform bins, next-token cross-entropy.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from chronos import ChronosPipeline
from chronos.chronos import ChronosConfig, ChronosModel
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from tsmerge_export.tools.distill.synthetic import HORIZON, SEASON, Array, Shares

from .family import Architecture, Stage

PAD, EOS, SPECIAL = 0, 1, 2
LIMIT = 10.0  # bins cover -LIMIT..LIMIT times the mean absolute value of the context
# Reserved directions of the residual stream; one PHASE + head for each harmonic, then the value features.
CONST, MARK, PHASE = 0, 1, 2
HARMONICS = ((SEASON, np.cos), (SEASON, np.sin), (SEASON // 3, np.cos), (SEASON // 3, np.sin))
SWING = 1.5  # amplitude of the phase code, in logits of the attention on the marker
FADE = 0.01  # logits per step: far days have a weaker code, so near days are preferred


class ChronosT5Family:
    """Builds, trains and wraps a Chronos-T5 nano model."""

    name = "chronos-t5"
    validation_windows = 24
    defaults = Architecture(
        d_model=96, d_ff=256, layers=3, decoder_layers=2, heads=4, context=512, tokens=1024
    )
    learning_rate = 1e-3

    def __init__(self) -> None:
        self._kernel: torch.Tensor | None = None

    def stage(self, progress: float) -> Stage:
        """Short contexts and clean waveforms first (attention is quadratic in the tokens), real series last."""
        if progress < 0.1:
            return Stage(32, 144, Shares(waveforms=0.5, real=0.2))
        if progress < 0.5:
            return Stage(32, 192, Shares(waveforms=0.15, real=0.4))
        if progress < 0.7:
            return Stage(24, 320, Shares(waveforms=0.05, real=0.75))
        return Stage(16, 512, Shares(waveforms=0.05, real=0.8))

    def build(self, arch: Architecture) -> nn.Module:
        """A freshly initialised T5ForConditionalGeneration with `chronos_config`."""
        chronos_config: dict[str, Any] = {
            "tokenizer_class": "MeanScaleUniformBins",
            "tokenizer_kwargs": {"low_limit": -LIMIT, "high_limit": LIMIT},
            "n_tokens": arch.tokens,
            "n_special_tokens": SPECIAL,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "use_eos_token": True,
            "model_type": "seq2seq",
            "context_length": arch.context,
            "prediction_length": HORIZON,
            "num_samples": 20,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        }
        config = T5Config(
            **arch.t5_sizes(),
            vocab_size=arch.tokens,
            # Enough buckets that every lag up to 128 (encoder) and 256 (decoder) has its own.
            relative_attention_num_buckets=512,
            relative_attention_max_distance=512,
            initializer_factor=0.5,
            use_cache=True,
            pad_token_id=PAD,
            eos_token_id=EOS,
            decoder_start_token_id=PAD,
            tie_word_embeddings=True,
            chronos_config=chronos_config,
            chronos_pipeline_class="ChronosPipeline",
        )
        model = T5ForConditionalGeneration(config)
        model.config.architectures = ["T5ForConditionalGeneration"]
        with torch.no_grad():
            initialise(model)
        return model

    def pipeline(self, model: nn.Module) -> ChronosPipeline:
        """The upstream pipeline around a model in memory."""
        assert isinstance(model, T5ForConditionalGeneration)
        config = ChronosConfig(**model.config.chronos_config)
        return ChronosPipeline(
            tokenizer=config.create_tokenizer(), model=ChronosModel(config=config, model=model)
        )

    def tensors(self, model: nn.Module, contexts: Array, targets: Array) -> tuple[torch.Tensor, ...]:
        """Tokens and mask [B, L + 1] of the contexts, labels [B, 64] and the decoder's input [B, 64]."""
        tokenizer = self.pipeline(model).tokenizer
        ids, mask, scale = tokenizer.context_input_transform(torch.from_numpy(contexts))
        labels, _, _ = tokenizer._input_transform(context=torch.from_numpy(targets), scale=scale)
        return ids, mask, labels, torch.cat([torch.full_like(labels[:, :1], PAD), labels[:, :-1]], dim=1)

    def loss(self, model: nn.Module, *tensors: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the 64 future tokens under teacher forcing, mean over tokens, in nats.

        The target is spread over the neighbouring bins (normal, 1.5 bins): bins are ordered, classes are not.
        """
        ids, mask, labels, decoder_ids = tensors
        logits = model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False
        ).logits
        if self._kernel is None or len(self._kernel) != logits.shape[-1]:
            self._kernel = _spread(logits.shape[-1], 1.5)
        likelihood: torch.Tensor = (self._kernel[labels] * logits.log_softmax(dim=-1)).sum(-1)
        return -likelihood.mean()

    def point(self, model: nn.Module, contexts: Array) -> Array:
        """Mean [windows, 64] of 20 samples by the upstream pipeline, from contexts [windows, length]."""
        pipeline = self.pipeline(model)
        parts = []
        for start in range(0, len(contexts), 32):  # 32 windows are 640 sequences, which bounds the memory
            samples = pipeline.predict(
                torch.from_numpy(contexts[start : start + 32]), prediction_length=HORIZON
            )
            parts.append(samples.mean(dim=1))
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def _spread(tokens: int, sigma: float) -> torch.Tensor:
    """[tokens, tokens]: row t is the normal density around t over the value tokens, summing to one."""
    index = torch.arange(tokens, dtype=torch.float32)
    kernel = torch.exp(-0.5 * ((index[None] - index[:, None]) / sigma) ** 2)
    kernel[:, : SPECIAL + 1] = 0.0
    kernel[: SPECIAL + 1] = 0.0
    kernel[: SPECIAL + 1, : SPECIAL + 1] = torch.eye(SPECIAL + 1)
    return kernel / kernel.sum(-1, keepdim=True)


def initialise(model: T5ForConditionalGeneration) -> None:
    """Value embeddings, phase code and copying cross-attention, in place, on top of the random weights."""
    config = model.config
    heads, width = config.num_heads, config.d_kv
    phases = HARMONICS[: min(heads, len(HARMONICS))]
    first = PHASE + len(phases)
    _initialise_embeddings(model.shared.weight, first)
    for name, weight in model.named_parameters():
        if name.endswith("layer_norm.weight"):
            weight.fill_(1.0)  # upstream multiplies these by the init factor too; the gains below count on 1

    encoder: Any = model.get_submodule("encoder.block.0.layer.0.SelfAttention")
    decoder: Any = model.get_submodule("decoder.block.0.layer.0.SelfAttention")
    cross: Any = model.get_submodule("decoder.block.0.layer.1.EncDecAttention")
    for attention in (encoder, decoder, cross):
        attention.q.weight.mul_(0.15)  # at first the codes decide, not random products of contents
    for attention, logit in ((encoder, 5.2), (decoder, 3.0)):
        gain = math.sqrt(logit / 20.0)  # 20 = normalised constant (2) times normalised marker (10)
        for head in range(len(phases)):
            row = head * width
            attention.q.weight[row, CONST] = gain
            attention.k.weight[row] = 0.0
            attention.k.weight[row, MARK] = gain
            attention.v.weight[row] = 0.0
            attention.v.weight[row, MARK] = 0.45
            attention.o.weight[:, row] = 0.0
            attention.o.weight[PHASE + head, row] = 0.45
    _initialise_bias(encoder, phases, bidirectional=True, logit=0.0)
    _initialise_bias(decoder, phases, bidirectional=False, logit=3.0)

    for head in range(heads):
        for index in range(len(phases)):
            row = head * width + index
            for matrix in (cross.q.weight, cross.k.weight):
                matrix[row] = 0.0
                matrix[row, PHASE + index] = 2.4
                matrix[row, CONST] = -2.4  # takes the mean of the code off
    size = min(cross.v.weight.shape)
    values = torch.eye(size)
    values[:first] = 0.0
    cross.v.weight[:size, :size] += 1.2 * values
    cross.o.weight[:size, :size] += 1.2 * values
    model.decoder.final_layer_norm.weight.fill_(5.0)  # tied logits are scaled by d_model ** -0.5


def _initialise_embeddings(weight: torch.Tensor, first: int) -> None:
    """Fourier features of the bin value; wavelengths from twice the whole range down to six bins."""
    tokens, width = weight.shape
    pairs = (width - first) // 2
    centres = torch.linspace(-LIMIT, LIMIT, tokens - SPECIAL - 1)
    shortest, longest = 6 * 2 * LIMIT / tokens, 4 * LIMIT
    wavelength = torch.logspace(math.log10(shortest), math.log10(longest), pairs)
    angle = 2 * math.pi * centres[:, None] / wavelength[None]
    weight.zero_()
    weight[SPECIAL + 1 :, first : first + pairs] = 0.7 * angle.cos()
    weight[SPECIAL + 1 :, first + pairs : first + 2 * pairs] = 0.7 * angle.sin()
    weight[SPECIAL + 1 :, CONST] = 1.0
    weight[PAD, CONST] = 1.0
    weight[PAD, MARK] = weight[EOS, MARK] = 4.0


def _initialise_bias(attention: Any, phases: tuple[Any, ...], bidirectional: bool, logit: float) -> None:
    """The bias of a T5Attention: its attention on the marker becomes a cosine or sine of the distance."""
    table = attention.relative_attention_bias.weight
    reach = attention.relative_attention_max_distance
    lags = np.arange(reach + 1)
    rows: list[tuple[torch.Tensor, int, np.ndarray]] = []
    for head, (period, wave) in enumerate(phases):
        if bidirectional:  # the marker stands on the right; the left only has to look alike
            angle = 2 * np.pi * lags / period
            rows.append((torch.from_numpy(lags), head, SWING * wave(angle) - FADE * lags))
            rows.append((-torch.from_numpy(lags), head, SWING * np.cos(angle) - FADE * lags))
        else:
            # The future step i has the phase of distance -i. The attention on the marker competes with the i
            # tokens in between, so the bias is solved from the nearest lag outwards.
            code = np.zeros(reach + 1)
            total = 1.0
            for lag in range(1, reach + 1):
                code[lag] = math.log(total) + SWING * wave(-2 * np.pi * lag / period) - logit
                total += math.exp(code[lag])
            rows.append((-torch.from_numpy(lags), head, code))
    for relative, head, code in rows:
        bucket = attention._relative_position_bucket(
            relative,
            bidirectional=bidirectional,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=reach,
        ).numpy()
        for index in np.unique(bucket):
            table[int(index), head] = float(code[bucket == index].mean())
