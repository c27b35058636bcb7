"""How noisy a series is: spectral entropy and total harmonic distortion, from the periodograms of its windows.

arXiv 2405.17951 finds that these two properties of the data foretell what local merging does to the error, without a
forecast: merging acts as a low-pass filter, and series whose power is spread over many frequencies lose least by it
(or gain). Periodogram: ``scipy.signal.periodogram`` with a Hann window, the mean taken off; the bin of frequency 0 is
left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from tsmerge_export.errors import MissingDependencyError

Floats = npt.NDArray[np.float64]

#: Fewer steps have no spectrum worth the name.
LEAST_STEPS = 16
_LOBE = 2  # bins on either side of a line that a Hann window spreads it over


@dataclass(frozen=True)
class Spectrum:
    """Of one column, means over its windows.

    Attributes:
        entropy: spectral entropy by its largest possible value: 0 a pure tone, 1 all frequencies alike.
        distortion: total harmonic distortion, root of (power of the harmonics / power of the strongest line).
        frequency: ``[F]`` in cycles per step. power: ``[F]``, share of each bin; sums to 1.
    """

    entropy: float
    distortion: float
    frequency: Floats
    power: Floats


def require_scipy() -> None:
    """Raises MissingDependencyError where SciPy is not installed."""
    if find_spec("scipy") is None:
        raise MissingDependencyError("tsmerge advise needs scipy; pip install 'tsmerge-export[advise]'")


def filled(windows: npt.NDArray[np.floating]) -> Floats:
    """``[W, L]`` with missing values interpolated between their neighbours; windows without any value are left out."""
    out = []
    for row in np.asarray(windows, np.float64):
        seen = ~np.isnan(row)
        if seen.any():
            steps = np.arange(len(row))
            out.append(np.interp(steps, steps[seen], row[seen]))
    return np.asarray(out).reshape(len(out), np.shape(windows)[-1])


def periodogram(windows: Floats) -> tuple[Floats, Floats]:
    """Frequencies ``[F]`` (cycles per step, without 0) and power ``[W, F]`` of windows ``[W, L]``."""
    from scipy import signal

    frequency, power = signal.periodogram(windows, window="hann", detrend="constant", axis=-1)
    return frequency[1:], power[..., 1:]


def spectral_entropy(power: Floats) -> Floats:
    """``[...]`` from power ``[..., F]``: ``-sum p log p / log F`` with ``p = power / sum(power)`` (Shannon entropy)."""
    share = power / power.sum(-1, keepdims=True)
    terms = share * np.log(np.where(share > 0, share, 1.0))
    entropy: Floats = np.abs(terms.sum(-1)) / np.log(power.shape[-1])  # abs: no -0
    return entropy


def harmonic_distortion(power: Floats) -> float:
    """Total harmonic distortion of one spectrum ``[F]`` (bins 1, 2, ... of a periodogram).

    ``sqrt(P_2 + P_3 + ...) / sqrt(P_1)``: P_1 is the power of the strongest line, P_h that at h times its frequency, up
    to half the sampling rate; each is summed over the main lobe of the window, no bin twice.
    """
    first = int(np.argmax(power)) + 1  # in units of one bin
    owner = np.zeros(len(power), np.int64)  # which harmonic a bin belongs to; 0: none
    for number in range(1, len(power) // first + 1):
        low, high = number * first - _LOBE, number * first + _LOBE
        place = owner[max(low - 1, 0) : high]
        place[place == 0] = number
    rest, base = float(power[owner > 1].sum()), float(power[owner == 1].sum())
    return float(np.sqrt(rest / base)) if base > 0 else 0.0


def spectrum_of(windows: npt.NDArray[np.floating]) -> Spectrum | None:
    """The figures of one column's windows ``[W, L]``, NaN is missing; None where no window varies."""
    rows = filled(windows)
    rows = rows[np.ptp(rows, axis=-1) > 0] if len(rows) else rows
    if not len(rows) or rows.shape[-1] < LEAST_STEPS:
        return None
    # In units of the window's own deviation: squares of tiny and huge series neither vanish nor overflow.
    rows = rows / np.abs(rows).max(-1, keepdims=True)
    rows = (rows - rows.mean(-1, keepdims=True)) / rows.std(-1, keepdims=True)
    frequency, power = periodogram(rows)
    share = power / power.sum(-1, keepdims=True)
    return Spectrum(
        float(spectral_entropy(power).mean()),
        float(np.mean([harmonic_distortion(row) for row in power])),
        frequency,
        share.mean(0),
    )
