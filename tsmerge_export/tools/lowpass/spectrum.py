"""Spectra by the discrete cosine transform: that of a signal mirrored at its ends, so that they do not leak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Signals = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]


#: Bands with less of the power than this are taken for silence: between spectral lines there is leakage alone.
FAINT = 1e-4


def _turn(length: int) -> npt.NDArray[np.complex128]:
    return np.exp(-1j * np.pi * np.arange(length) / (2 * length))


def dct(signals: Signals) -> Signals:
    """Orthonormal DCT-II of ``[R, N]``: ``c_n = s_n sum_t x_t cos(pi n (2t + 1) / 2N)``, the squares sum up alike."""
    length = signals.shape[-1]
    mirrored = np.concatenate([signals, signals[..., ::-1]], axis=-1)
    raw = (np.fft.fft(mirrored)[..., :length] * _turn(length)).real / 2
    raw *= np.sqrt(2 / length)
    raw[..., 0] /= np.sqrt(2)
    return raw


def inverse_dct(coefficients: Signals) -> Signals:
    """Inverse of :func:`dct`."""
    length = coefficients.shape[-1]
    raw = coefficients * np.sqrt(length / 2)
    raw[..., 0] *= np.sqrt(2)
    half = 2 * raw / _turn(length)
    whole = np.zeros((*half.shape[:-1], 2 * length), complex)
    whole[..., :length] = half
    whole[..., length + 1 :] = np.conj(half[..., 1:][..., ::-1])
    result: Signals = np.fft.ifft(whole).real[..., :length]
    return result


@dataclass(frozen=True)
class Bands:
    """Spectra in logarithmic bands of frequency, mean over the coefficients of a band and all signals.

    Attributes:
        frequency: ``[F]``, cycles per step, geometric middle.
        original, merged, gaussian: ``[F]``, power of a coefficient.
        share: ``[F]``, of the original's power in the whole band.
        linear_merged, linear_gaussian: ``[F]``, the gain of the best linear filter, the regression of the result's
            coefficients on the original's; what merged power that leaves unexplained is distortion.
    """

    frequency: Floats
    original: Floats
    merged: Floats
    gaussian: Floats
    share: Floats
    linear_merged: Floats
    linear_gaussian: Floats

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: [float(f"{v:.6g}") for v in values] for name, values in vars(self).items()}


def bands(original: Signals, merged: Signals, gaussian: Signals, per_octave: int = 4) -> Bands:
    """The spectra of three sets of signals ``[R, N]``, without their means."""
    x, y, z = (dct(one)[:, 1:] for one in (original, merged, gaussian))
    index = np.arange(1, x.shape[1] + 1)
    which = np.floor(per_octave * np.log2(index)).astype(int)
    which = np.unique(which, return_inverse=True)[1]
    count = np.bincount(which) * len(x)

    def mean(values: Signals) -> Floats:
        return np.bincount(which, weights=values.sum(axis=0)) / count

    power = mean(x * x)
    safe = np.where(power > 0, power, 1.0)
    frequency = np.exp(np.bincount(which, weights=np.log(index)) / np.bincount(which)) / (
        2 * original.shape[1]
    )
    return Bands(
        frequency, power, mean(y * y), mean(z * z), power * count / max((power * count).sum(), 1e-300),
        np.where(power > 0, mean(x * y) / safe, 0.0), np.where(power > 0, mean(x * z) / safe, 0.0),
    )  # fmt: skip


def cutoff(frequency: Floats, linear: Floats, share: Floats) -> float | None:
    """Where the power of a linear gain first falls to a half, between bands by interpolation; None: nowhere.

    Args:
        frequency, linear: ``[F]``, as in :class:`Bands`.
        share: ``[F]``, of the original's power in each band; those below :data:`FAINT` say nothing about a gain.
    """
    heard = share >= FAINT
    frequency, power = frequency[heard], linear[heard] ** 2
    below = np.flatnonzero(power < 0.5)
    if not len(below):
        return None
    first = int(below[0])
    if first == 0:
        return float(frequency[0])
    part = (power[first - 1] - 0.5) / (power[first - 1] - power[first])
    return float(np.exp(np.log(frequency[first - 1]) * (1 - part) + np.log(frequency[first]) * part))
