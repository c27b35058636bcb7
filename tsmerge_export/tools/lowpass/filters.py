"""The two filters: merge and unmerge, and a Gaussian that leaves as many degrees of freedom."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from tsmerge_export.methods.combine import unmerge
from tsmerge_export.methods.local.reference import local_merge
from tsmerge_export.tools.lowpass.spectrum import dct, inverse_dct

Signals = npt.NDArray[np.float64]


class Merging(NamedTuple):
    """How a signal is merged: ``steps`` times in a row :func:`~tsmerge_export.methods.local.reference.local_merge`.

    Attributes:
        k, ratio, similarity: of each step. patch: values of the signal that make a token.
    """

    ratio: Fraction
    steps: int
    k: int | None = 1
    similarity: str = "l2"
    patch: int = 1

    def describe(self) -> str:
        """The settings in words."""
        near = "global" if self.k is None else self.k
        unit = "one value" if self.patch == 1 else f"{self.patch} values"
        return f"{self.steps} steps, ratio {self.ratio}, k {near}, {self.similarity}, {unit} a token"


def merge_and_unmerge(signals: Signals, how: Merging) -> tuple[Signals, int]:
    """What is left of signals after the reference's merging, every value read from the token that its own went into.

    Args:
        signals: ``[R, N]``, N a multiple of ``how.patch``. They are standardised row by row before tokens are
            compared, as forecasters do, and scaled back.

    Returns:
        ``[R, N]``, and how many tokens are left of ``N / patch``.
    """
    mean = signals.mean(axis=1, keepdims=True)
    deviation = signals.std(axis=1, keepdims=True)
    deviation = np.where(deviation > 0, deviation, 1.0)
    rows, length = signals.shape
    x = torch.from_numpy(((signals - mean) / deviation).astype(np.float32)).view(rows, -1, how.patch)
    size, targets = None, []
    for _ in range(how.steps):
        merged = local_merge(x, size=size, k=how.k, ratio=how.ratio, similarity=how.similarity)
        x, size = merged.y, merged.size
        targets.append(merged.target)
    left = x.shape[1]
    for target in reversed(targets):
        x = unmerge(x, target)
    back = x.reshape(rows, length).double().numpy()
    return back * deviation + mean, left


def gain(sigma: float, frequency: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gain of a Gaussian filter: ``exp(-(2 pi f sigma)^2 / 2)``, f in cycles per step, sigma in steps."""
    return np.exp(-0.5 * (2 * np.pi * frequency * sigma) ** 2)


def frequencies(length: int) -> npt.NDArray[np.float64]:
    """Frequency of each of ``length`` cosine coefficients: ``n / (2 length)`` cycles per step."""
    return np.arange(length) / (2 * length)


def gaussian(signals: Signals, sigma: float) -> Signals:
    """Signals ``[R, N]`` mirrored at their ends and filtered by a Gaussian of ``sigma`` steps (0: as they are)."""
    return inverse_dct(dct(signals) * gain(sigma, frequencies(signals.shape[1])))


def degrees_of_freedom(sigma: float, length: int) -> float:
    """``trace(S'S)`` of the filter matrix S: the sum of its squared gains.

    White noise of variance 1 leaves it with the variance ``degrees / length``. Averages over ``m`` blocks have
    exactly ``m`` of them: that is what merging is where it does not look at the values.
    """
    return float((gain(sigma, frequencies(length)) ** 2).sum())


def sigma_for(share: float, length: int) -> float:
    """The sigma, in steps, whose filter has ``share * length`` degrees of freedom; about ``1 / (2 sqrt(pi) share)``.

    Args:
        share: tokens left of all, above ``1 / length`` and at most 1.
    """
    wanted = share * length
    if share >= 1:
        return 0.0
    low, high = 0.0, float(length)
    for _ in range(200):
        middle = (low + high) / 2
        if degrees_of_freedom(middle, length) > wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2
