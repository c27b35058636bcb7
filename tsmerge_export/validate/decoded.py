"""Forecasts of a family that generates step by step, decoded by its exported files: several times as fast as eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from torch import nn

from tsmerge_export.build import Built
from tsmerge_export.families.base import Arrays, Family
from tsmerge_export.pipelines import DEFAULT_MEMORY, sampling
from tsmerge_export.pipelines.base import quantile
from tsmerge_export.pipelines.chronos_t5 import draw_paths
from tsmerge_export.pipelines.decoder import CachedDecoder
from tsmerge_export.pipelines.sampling import Sampling
from tsmerge_export.pipelines.tokenizer import MeanScaleTokenizer
from tsmerge_export.runtimes.onnxruntime import GraphSession

Run = Callable[[Arrays], Arrays]
#: A forecaster around a run of the first component: ``(run, series [B, L], seed) -> [B, Q, H]``.
Forecast = Callable[[Run, NDArray[np.float32], int], NDArray[np.float32]]


class DecodedForecast:
    """A :data:`Forecast` by the components ``cross`` and ``decoder``, which do not depend on how the encoder merged.

    Every path draws from given uniform numbers, the same ones for the same seed and series: two encoders are compared
    on common random numbers.

    Args:
        family: one whose :meth:`~tsmerge_export.families.base.Family.generation` is not None.
        cross, decoder: their .onnx files. threads: of ONNX Runtime.
        memory: bytes for what one part of a batch takes while it is decoded, about.
    """

    def __init__(
        self,
        family: Family,
        model: nn.Module,
        cross: Path,
        decoder: Path,
        threads: int | None = None,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        settings: dict[str, Any] = family.pipeline(model)
        self._tokenizer = MeanScaleTokenizer.from_dict(settings["tokenizer"])
        self._start = int(settings["decoder_start_token_id"])
        self._samples, self._steps = int(settings["num_samples"]), int(settings["prediction_length"])
        self._how = Sampling(
            float(settings["temperature"]), int(settings["top_k"]), float(settings["top_p"]), self._tokenizer.eos
        )  # fmt: skip
        self._levels = family.quantile_levels(model)
        self._memory = memory
        self._decoder = CachedDecoder(*(_quiet_session(path, threads) for path in (cross, decoder)))

    def __call__(self, run: Run, series: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
        """``series [B, L]`` float32, NaN is missing -> quantiles ``[B, Q, H]`` float32."""
        each = self._decoder.bytes_per_series(series.shape[1], self._samples, self._steps)
        size = max(1, self._memory // each)
        parts = [self._part(run, series, i, i + size, seed) for i in range(0, len(series), size)]
        return np.concatenate(parts)

    def _part(
        self, run: Run, series: NDArray[np.float32], begin: int, end: int, seed: int
    ) -> NDArray[np.float32]:
        rows = series[begin:end]
        ids, mask, scale = self._tokenizer.encode(rows)
        encoded = run({"input_ids": ids, "attention_mask": mask})
        uniform = np.stack(
            [sampling.uniforms(seed, begin + row, 0, self._samples, self._steps) for row in range(len(rows))]
        )
        decoding = self._decoder.start(encoded, self._samples, self._steps)
        paths = self._tokenizer.decode(draw_paths(decoding, self._start, uniform, self._how), scale)
        # [B, S, H] -> [B, H, Q] -> [B, Q, H]
        return quantile(paths, self._levels, axis=1).transpose(0, 2, 1)


def decoded_by(
    family: Family, model: nn.Module, built: Sequence[Built], threads: int | None = None
) -> DecodedForecast | None:
    """The decoder among a model's files; None for a family that does not generate step by step."""
    if family.generation(model) is None:
        return None
    files = {item.component.name: item.merged for item in built}
    return DecodedForecast(family, model, files["cross"], files["decoder"], threads)


def _quiet_session(path: Path, threads: int | None) -> GraphSession:
    options = ort.SessionOptions()
    # Idle threads that spin would take the cores from what is timed or run beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return GraphSession(path, threads=threads, options=options)
