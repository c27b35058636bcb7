"""Autoformer of transformers: auto-correlation and decomposition on an even grid of steps, exported without merging."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoformerConfig, AutoformerForPrediction
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.autoformer import modeling_autoformer

from tsmerge_export.families.base import Arrays, Card, Family, Handle, MergePoints, Published
from tsmerge_export.families.hf import ReplacedForward
from tsmerge_export.families.lagged import Encoder, LaggedFamily, time_features
from tsmerge_export.families.time_series_transformer import OUTPUTS
from tsmerge_export.forecast.history import clock
from tsmerge_export.merge.run import MergeRun

_REASON = (
    "auto-correlation shifts the series by whole steps and decomposition averages neighbours, so both need every step "
    "in its place; only the feed-forward between two decompositions could run on fewer"
)


class _Spectrum:
    """Half a discrete Fourier transform over axis 1, ``[B, n // 2 + 1, D]``, in real numbers: ONNX has no others."""

    def __init__(self, real: Tensor, imaginary: Tensor) -> None:
        self.real, self.imaginary = real, imaginary

    def __mul__(self, other: _Spectrum) -> _Spectrum:
        return _Spectrum(
            self.real * other.real - self.imaginary * other.imaginary,
            self.real * other.imaginary + self.imaginary * other.real,
        )


def _waves(n: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[n // 2 + 1, n]``."""
    angle = 2 * np.pi * np.outer(np.arange(n // 2 + 1), np.arange(n)) % (2 * np.pi * n) / n
    return torch.from_numpy(np.cos(angle)).float(), torch.from_numpy(np.sin(angle)).float()


def _rfft(x: Tensor, n: int, dim: int) -> _Spectrum:
    cosine, sine = _waves(n)
    return _Spectrum(cosine @ x, -(sine @ x))


def _irfft(spectrum: _Spectrum, n: int, dim: int) -> Tensor:
    cosine, sine = _waves(n)
    weight = torch.full((n // 2 + 1, 1), 2.0)  # all but the first and, for an even n, the last stand for two
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    out: Tensor = (cosine.T @ (spectrum.real * weight) - sine.T @ (spectrum.imaginary * weight)) / n
    return out


class _Torch(SimpleNamespace):
    """torch for ``modeling_autoformer`` alone, its Fourier transforms in real numbers."""

    fft = SimpleNamespace(rfft=_rfft, irfft=_irfft)

    @staticmethod
    def conj(x: _Spectrum) -> _Spectrum:
        """The conjugate."""
        return _Spectrum(x.real, -x.imaginary)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def _real_transforms() -> Iterator[None]:
    with patch.object(modeling_autoformer, "torch", _Torch()):
        yield


class _Encoder(Encoder):
    def module(self, model: Any) -> Any:
        module: Any = super().module(model)
        module.context = _real_transforms
        return module


class Autoformer(LaggedFamily):
    """``AutoformerForPrediction``."""

    name = "autoformer"
    model_class, config_class = AutoformerForPrediction, AutoformerConfig
    card = Card(
        (
            (
                "encoder",
                f"`past_values`, `past_observed_mask` and the features that the config has -> {OUTPUTS}",
            ),
        ),
        "time steps; the length is fixed by the config",
        "none: `--merge none` only",
        unsupported=(
            f"merging: {_REASON}",
            "the decoder is not exported: forecasts run it in PyTorch",
        ),
    )
    published = Published(
        "huggingface/autoformer-tourism-monthly, with a context of 96",
        {
            "architectures": ["AutoformerForPrediction"], "model_type": "autoformer", "prediction_length": 24,
            "context_length": 96, "lags_sequence": [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 23, 24],
            "num_time_features": 2, "d_model": 64, "encoder_layers": 4, "decoder_layers": 4, "encoder_ffn_dim": 128,
            "decoder_ffn_dim": 128, "label_length": 24, "moving_average": 25,
        },
    )  # fmt: skip

    def merging_layers(self, model: Any) -> Sequence[int]:
        """None of them."""
        return ()

    def merge_points(self, model: Any) -> MergePoints:
        return MergePoints(0, reason=_REASON)

    def components(self, model: Any) -> tuple[_Encoder, ...]:
        return (_Encoder(model, self.network_inputs, None, self.deterministic),)

    def generation(self, model: Any) -> None:
        return None

    def instrument(self, model: Any, run: MergeRun) -> Sequence[Handle]:
        return ()

    # Its decoder makes all steps at once, and there is nothing to merge.
    objective = Family.objective

    def network_inputs(self, core: Any, given: dict[str, Any]) -> Sequence[Tensor]:
        values, temporal, loc, scale, static = core.create_network_inputs(**given)
        return torch.cat([values, temporal], -1), loc, scale, static

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """See :meth:`Family.forecast`: the original decoder makes all steps at once, of which the mean is taken."""
        config = model.config
        encoder = self.components(model)[0]
        feed = encoder.feed(series, spread=False)
        found = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in run(feed).items()}
        given = encoder.named([torch.from_numpy(feed[spec.name]) for spec in encoder.inputs])
        wave = torch.from_numpy(clock(0, config.prediction_length, time_features(config)))
        past = given["past_values"]
        # Its argument for the encoder's output fails together with future values (which the decoder does not read).
        states = BaseModelOutput(last_hidden_state=found["last_hidden_state"])
        replaced = ReplacedForward(model.model.encoder, lambda **_: states)
        try:
            with torch.no_grad():
                decoded = model.model(
                    **given, use_cache=False,
                    future_values=past.new_zeros((len(past), config.prediction_length, *past.shape[2:])),
                    future_time_features=wave.expand(len(past), -1, -1),
                )  # fmt: skip
        finally:
            replaced.remove()
        with torch.no_grad():
            drawn = model.output_params(decoded.last_hidden_state + decoded.trend)
            mean = model.output_distribution(drawn, loc=found["loc"], scale=found["scale"]).mean
        point = mean[:, -config.prediction_length :]
        point = point if point.dim() == 2 else point[..., 0]
        result: NDArray[np.float32] = point[:, None].float().numpy()
        return result
