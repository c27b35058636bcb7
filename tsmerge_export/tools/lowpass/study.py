"""What merging leaves of signals and what a Gaussian filter does, signal by signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tsmerge_export.tools.lowpass.filters import Merging, gaussian, merge_and_unmerge, sigma_for
from tsmerge_export.tools.lowpass.signals import NOISES, clean
from tsmerge_export.tools.lowpass.spectrum import Bands, bands, cutoff, dct

Signals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """What merging and the Gaussian filter of as many tokens did to one kind of signal.

    Attributes:
        noise, level: what was added to the clean signal, in standard deviations of it; a column's name and None for
            a signal of the user's.
        length: N steps. tokens: before merging. left: after. sigma: of the Gaussian, in steps.
        edge: ``left / (2 tokens)`` cycles per step, the highest frequency that as many evenly spaced tokens can hold.
        low, high: by "merged" and "gaussian" the power below and above the edge as a share of the original's there.
        cutoff: by the same, where the linear part of the gain falls to half the power, cycles per step; None: nowhere.
        change: by the same, the mean squared difference from the original, as a share of its variance.
        error: mean squared difference from the clean signal as a share of the clean variance, by "original" too;
            None for a signal of the user's.
        spectrum: in bands. picture: the first signal's steps, original, merged and filtered.
    """

    noise: str
    level: float | None
    length: int
    tokens: int
    left: int
    sigma: float
    edge: float
    low: dict[str, float]
    high: dict[str, float]
    cutoff: dict[str, float | None]
    change: dict[str, float]
    error: dict[str, float] | None
    spectrum: Bands
    picture: dict[str, npt.NDArray[np.float64]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the picture."""
        out = {k: v for k, v in vars(self).items() if k not in ("spectrum", "picture")}
        return {**out, "spectrum": self.spectrum.to_dict()}


def effect(
    noise: str, level: float | None, signals: Signals, how: Merging, reference: Signals | None = None
) -> Effect:
    """Measure one set of signals.

    Args:
        noise, level: for the record. signals: ``[R, N]``, N a multiple of ``how.patch``, each row with some variance.
        reference: the clean signals ``[R, N]``, where they are known.
    """
    length = signals.shape[1]
    tokens = length // how.patch
    merged, left = merge_and_unmerge(signals, how)
    sigma = sigma_for(left / tokens, length)
    results = {"merged": merged, "gaussian": gaussian(signals, sigma)}
    edge = left / (2 * tokens)
    # Coefficient n has the frequency n / 2N; the mean (n = 0) is no matter of either filter.
    below = (np.arange(1, length) / (2 * length)) < edge
    before = dct(signals)[:, 1:] ** 2
    low, high = {}, {}
    for name, result in results.items():
        after = dct(result)[:, 1:] ** 2
        low[name] = _share(after[:, below].sum(), before[:, below].sum())
        high[name] = _share(after[:, ~below].sum(), before[:, ~below].sum())
    variance = signals.var(axis=1).mean()
    spectrum = bands(signals, merged, results["gaussian"])
    error = None
    if reference is not None:
        scale = reference.var(axis=1).mean()
        error = {
            name: float(((value - reference) ** 2).mean() / scale)
            for name, value in {"original": signals, **results}.items()
        }
    return Effect(
        noise, level, length, tokens, left, sigma, edge, low, high,
        {
            "merged": cutoff(spectrum.frequency, spectrum.linear_merged, spectrum.share),
            "gaussian": cutoff(spectrum.frequency, spectrum.linear_gaussian, spectrum.share),
        },
        {name: float(((value - signals) ** 2).mean() / variance) for name, value in results.items()},
        error,
        spectrum,
        {"original": signals[0], **{name: value[0] for name, value in results.items()}},
    )  # fmt: skip


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def study(
    how: Merging,
    *,
    length: int = 1024,
    period: int = 64,
    levels: Sequence[float] = (0.1, 0.3, 1.0),
    count: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Effect]:
    """Every noise at every level, added to the same clean signals.

    Args:
        how: the merging. length: N, a multiple of ``how.patch``. period: of the clean signal's faster part, in steps.
        levels: standard deviation of the noise, that of the clean signal being 1.
        count: signals of each kind. seed: of phases and noise.
        progress: called with (kinds done, kinds in all).
    """
    rng = np.random.default_rng(seed)
    reference = clean(count, length, period, rng)
    found: list[Effect] = []
    for name, make in NOISES.items():
        noise = make(count, length, period, rng)
        for level in levels:
            found.append(effect(name, level, reference + level * noise, how, reference))
            if progress is not None:
                progress(len(found), len(NOISES) * len(levels))
    return found
