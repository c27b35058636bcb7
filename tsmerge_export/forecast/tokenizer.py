"""The mean-scaling tokenizer of Chronos (arXiv 2403.07815, section 3.1) in numpy, equal to upstream's."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Of PyTorch's cascade sum: its kernel uses AVX2 at most (8 float32), on processors with AVX-512 too.
_LEVELS, _ROWS, _LANES = 4, 4, 8
_FAR = np.float32(1e20)


@dataclass(frozen=True)
class MeanScaleTokenizer:
    """Scales a series by the mean of its magnitudes and puts it into uniform bins.

    Attributes:
        centers: ``[n]`` float32, the value of each bin.
        tokens: size of the vocabulary. special: how many ids come before the bins.
        pad, eos: special ids. use_eos: whether the end token follows the context.
        context_length: longer contexts lose their beginning.
    """

    centers: Floats
    tokens: int
    special: int
    pad: int
    eos: int
    use_eos: bool
    context_length: int

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> MeanScaleTokenizer:
        """Inverse of :func:`settings_of`. Raises UsageError for anything else."""
        try:
            if settings["class"] != "MeanScaleUniformBins":
                raise UsageError(
                    f"tokenizer {settings['class']!r} is not known; export the bundle again, or upgrade"
                )
            centers = np.frombuffer(base64.b64decode(settings["centers"], validate=True), "<f4")
            numbers = {
                name: int(settings[key])
                for name, key in (
                    ("tokens", "n_tokens"),
                    ("special", "n_special_tokens"),
                    ("pad", "pad_token_id"),
                    ("eos", "eos_token_id"),
                    ("context_length", "context_length"),
                )
            }
            return cls(centers=centers.astype(np.float32), use_eos=bool(settings["use_eos_token"]), **numbers)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                "the manifest's tokenizer settings are incomplete; export the bundle again"
            ) from None

    def encode(self, context: Floats) -> tuple[Ints, Ints, Floats]:
        """Series to tokens.

        Args:
            context: ``[B, L]`` float32, NaN is missing.

        Returns:
            Token ids ``[B, N]`` int64, mask ``[B, N]`` int64 (0 is missing), scale ``[B]`` float32; N counts the end
            token, where there is one.
        """
        context = np.ascontiguousarray(context[:, -self.context_length :], np.float32)
        seen = ~np.isnan(context)
        with np.errstate(all="ignore"):
            scale = nansum(np.abs(context) * seen) / seen.sum(axis=1).astype(np.float32)
            scale[~(scale > 0)] = 1.0
            scaled = context / scale[:, None]
        edges = np.concatenate([[-_FAR], (self.centers[1:] + self.centers[:-1]) / np.float32(2), [_FAR]])
        ids = np.searchsorted(edges.astype(np.float32), scaled, side="right") + self.special
        ids = np.clip(ids, 0, self.tokens - 1)
        ids[~seen] = self.pad
        mask = seen.astype(np.int64)
        if self.use_eos:
            ids = np.pad(ids, ((0, 0), (0, 1)), constant_values=self.eos)
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        return ids.astype(np.int64), mask, scale

    def decode(self, tokens: Ints, scale: Floats) -> Floats:
        """Tokens ``[B, S, T]`` and scale ``[B]`` to values ``[B, S, T]`` float32."""
        index = np.clip(tokens - self.special - 1, 0, len(self.centers) - 1)
        with np.errstate(over="ignore", invalid="ignore"):  # series near the end of float32, as upstream
            return self.centers[index] * scale[:, None, None]


def settings_of(centers: Floats, config: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready settings of a tokenizer, for the manifest.

    Args:
        centers: values of the bins, as the model's own tokenizer has them.
        config: the model's ``chronos_config``.
    """
    keys = ("n_tokens", "n_special_tokens", "pad_token_id", "eos_token_id", "use_eos_token", "context_length")
    return {
        "class": config["tokenizer_class"],
        **config["tokenizer_kwargs"],
        **{key: config[key] for key in keys},
        "centers": base64.b64encode(np.asarray(centers, "<f4").tobytes()).decode("ascii"),
    }


def nansum(values: Floats) -> Floats:
    """Sum of each row ``[B, L]`` without NaN, rounded as PyTorch rounds it.

    Upstream scales by such a sum. One that differs in its last bit moves values at the edge of a bin into the next, so
    the order of additions is that of PyTorch's vectorised cascade sum: every SIMD lane adds four interleaved rows, and
    partial sums move up a level after a power of two of them.
    """
    values = np.where(np.isnan(values), np.float32(0), values)
    length = values.shape[1]
    if length < _LANES:
        # Too short for vectors: PyTorch adds four interleaved rows of single numbers.
        return _row_sum(values[:, :, None])[:, 0] if length else np.zeros(len(values), np.float32)
    whole = length // _LANES
    partial = _row_sum(values[:, : whole * _LANES].reshape(len(values), whole, _LANES))
    total = np.zeros(len(values), np.float32)
    for rest in values[:, whole * _LANES :].T:
        total += rest
    for lane in partial.T:
        total += lane
    return total


def _row_sum(values: Floats) -> Floats:
    """``[B, n, lanes]`` -> ``[B, lanes]``, n added as four interleaved rows."""
    batch, n, lanes = values.shape
    whole = n // _ROWS
    sums = _cascade(values[:, : whole * _ROWS].reshape(batch, whole, _ROWS, lanes))
    for i in range(whole * _ROWS, n):
        sums[:, 0] += values[:, i]
    for row in range(1, _ROWS):
        sums[:, 0] += sums[:, row]
    return sums[:, 0]


def _cascade(values: Floats) -> Floats:
    """``[B, n, rows, lanes]`` -> ``[B, rows, lanes]``: a running sum whose parts move up through the levels."""
    n = values.shape[1]
    power = max(4, (max(n, 1) - 1).bit_length() // _LEVELS)
    step, mask = 1 << power, (1 << power) - 1
    sums = np.zeros((_LEVELS, len(values), *values.shape[2:]), np.float32)
    i = 0
    while i + step <= n:
        for _ in range(step):
            sums[0] += values[:, i]
            i += 1
        for level in range(1, _LEVELS):
            sums[level] += sums[level - 1]
            sums[level - 1] = 0
            if i & (mask << (level * power)):
                break
    for j in range(i, n):
        sums[0] += values[:, j]
    for level in range(1, _LEVELS):
        sums[0] += sums[level]
    return sums[0]
