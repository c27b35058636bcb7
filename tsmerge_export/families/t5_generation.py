"""Chronos-T5's components in a row: teacher-forced steps, and forecasts decoded by the exported files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from tsmerge_export.families.base import Arrays, Component, Forecast, Forecasts, Generation, Run, TensorSpec
from tsmerge_export.forecast import sampling
from tsmerge_export.forecast.base import quantile
from tsmerge_export.forecast.chronos_t5 import draw_paths
from tsmerge_export.forecast.decoder import CachedDecoder
from tsmerge_export.forecast.sampling import Sampling
from tsmerge_export.forecast.tokenizer import MeanScaleTokenizer


class T5Generation(Generation):
    """Encoder, cross and decoder. ``tokens [B, S, T]`` int64 is what the decoder is given step by
    step; the output is ``logits [B, S, T, V]``.

    Args:
        encoder: the first component. settings: of the family's pipeline. levels: of the forecast's quantiles.
    """

    # More steps than the first caches hold.
    _SAMPLES, _STEPS = 2, 18

    def __init__(
        self, model: Any, encoder: Component, settings: Mapping[str, Any], levels: Sequence[float]
    ) -> None:
        self._encoder, self._settings, self._levels = encoder, settings, levels
        dims = ("batch", "samples", "steps")
        self.inputs = (*encoder.inputs, TensorSpec("tokens", "int64", dims))
        self.outputs = (TensorSpec("logits", "float32", (*dims, int(model.config.vocab_size))),)

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The original model over all steps at once, without caches, one row per sample."""
        tokens, mask = inputs["tokens"], inputs["attention_mask"]
        hidden = model.encoder(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        rows = tokens.shape[1]
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden.repeat_interleave(rows, 0)),
            attention_mask=mask.repeat_interleave(rows, 0),
            decoder_input_ids=tokens.flatten(0, 1),
            use_cache=False,
        ).logits
        return {"logits": logits.unflatten(0, tokens.shape[:2])}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        inputs = self._encoder.from_series(model, series)
        rng = np.random.default_rng(series.shape)
        tokens = rng.integers(0, model.config.vocab_size, (len(series), self._SAMPLES, self._STEPS))
        tokens[:, :, 0] = model.config.decoder_start_token_id
        return inputs | {"tokens": tokens}

    def follow(self, sessions: Mapping[str, Any]) -> Callable[[Arrays, Arrays], Arrays]:
        """One step after the other, through the caches that a forecaster keeps."""
        decoder = CachedDecoder(sessions["cross"], sessions["decoder"])

        def run(inputs: Arrays, encoded: Arrays) -> Arrays:
            tokens = inputs["tokens"]
            steps = decoder.start(encoded, *tokens.shape[1:])
            logits = [steps.step(tokens[:, :, step]).copy() for step in range(tokens.shape[2])]
            return {"logits": np.stack(logits, axis=2)}

        return run

    def forecaster(self, sessions: Mapping[str, Any], memory: int) -> Forecast:
        return _Decoded(self._settings, self._levels, sessions, memory)

    def forecasts(self, sessions: Mapping[str, Any], memory: int) -> Forecasts:
        """The same: the cost draws as a forecaster does."""
        decoded = _Decoded(self._settings, self._levels, sessions, memory)
        return Forecasts(tuple(self._levels), decoded)


class _Decoded:
    """Quantiles of sample paths by ``cross`` and ``decoder``, which do not depend on how the encoder merged.

    Every path draws from given uniform numbers, the same ones for the same seed and series: two encoders are compared
    on common random numbers.
    """

    def __init__(
        self, settings: Mapping[str, Any], levels: Sequence[float], sessions: Mapping[str, Any], memory: int
    ) -> None:
        self._tokenizer = MeanScaleTokenizer.from_dict(settings["tokenizer"])
        self._start = int(settings["decoder_start_token_id"])
        self._samples, self._steps = int(settings["num_samples"]), int(settings["prediction_length"])
        self._how = Sampling(
            float(settings["temperature"]), int(settings["top_k"]), float(settings["top_p"]), self._tokenizer.eos
        )  # fmt: skip
        self._levels, self._memory = levels, memory
        self._decoder = CachedDecoder(sessions["cross"], sessions["decoder"])

    def __call__(
        self, run: Run, series: NDArray[np.float32], seed: int = 0, first: int = 0
    ) -> NDArray[np.float32]:
        """``series [B, L]`` float32, NaN is missing, the first with number ``first`` in the streams -> quantiles
        ``[B, Q, H]`` float32."""
        each = self._decoder.bytes_per_series(series.shape[1], self._samples, self._steps)
        size = max(1, self._memory // each)
        parts = [self._part(run, series[i : i + size], seed, first + i) for i in range(0, len(series), size)]
        return np.concatenate(parts)

    def _part(self, run: Run, rows: NDArray[np.float32], seed: int, first: int) -> NDArray[np.float32]:
        ids, mask, scale = self._tokenizer.encode(rows)
        encoded = run({"input_ids": ids, "attention_mask": mask})
        uniform = np.stack(
            [sampling.uniforms(seed, first + row, 0, self._samples, self._steps) for row in range(len(rows))]
        )
        decoding = self._decoder.start(encoded, self._samples, self._steps)
        paths = self._tokenizer.decode(draw_paths(decoding, self._start, uniform, self._how), scale)
        # [B, S, H] -> [B, H, Q] -> [B, Q, H]
        return quantile(paths, self._levels, axis=1).transpose(0, 2, 1)
