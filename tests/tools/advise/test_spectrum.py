"""Spectral entropy and harmonic distortion against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from tsmerge_export.tools.advise.spectrum import (
    filled,
    harmonic_distortion,
    periodogram,
    spectral_entropy,
    spectrum_of,
)

pytest.importorskip("scipy", reason="scipy is not installed: pip install scipy")
LENGTH = 480
T = np.arange(LENGTH)


def wave(*amplitudes: float, period: int = 48) -> np.ndarray:
    """Amplitudes of the fundamental and its harmonics, whole periods: every line lies on a bin."""
    return sum(a * np.cos(2 * np.pi * (n + 1) * T / period + n) for n, a in enumerate(amplitudes))  # type: ignore[return-value]


def test_a_tone_has_the_entropy_of_the_window() -> None:
    """A Hann window spreads a line on a bin over three of them: 1/6, 2/3, 1/6 of its power."""
    found = spectrum_of(wave(1.0)[None])
    assert found is not None
    entropy = -(2 / 6 * np.log(1 / 6) + 2 / 3 * np.log(2 / 3)) / np.log(LENGTH // 2)
    assert found.entropy == pytest.approx(entropy, rel=1e-9)
    assert found.distortion == pytest.approx(0, abs=1e-9)
    assert found.frequency[np.argmax(found.power)] == pytest.approx(1 / 48)
    assert found.power.sum() == pytest.approx(1)


def test_flat_power_has_entropy_one_and_a_single_bin_none() -> None:
    assert spectral_entropy(np.full((2, 40), 3.0)).tolist() == pytest.approx([1, 1])
    assert spectral_entropy(np.eye(1, 40, 7))[0] == 0


@pytest.mark.parametrize("amplitudes", [(1.0, 0.5), (1.0, 0.0, 0.3), (2.0, 0.4, 0.6, 0.2)])
def test_distortion_is_the_root_of_the_harmonics_by_the_fundamental(amplitudes: tuple[float, ...]) -> None:
    found = spectrum_of(wave(*amplitudes)[None])
    assert found is not None
    want = np.sqrt(sum(a * a for a in amplitudes[1:])) / amplitudes[0]
    assert found.distortion == pytest.approx(want, rel=1e-9)


def test_no_bin_counts_for_two_harmonics() -> None:
    """Fundamental in bin 1: the lobes overlap, and all power is shared out exactly once."""
    power = np.random.default_rng(0).uniform(0, 1, 30)
    power[0] = 5.0
    # Lines at 1, 2, ...: the first owns bins 1 to 3, the rest belongs to the harmonics.
    assert harmonic_distortion(power) == pytest.approx(np.sqrt(power[3:].sum() / power[:3].sum()))


def test_what_lies_between_the_harmonics_is_no_distortion() -> None:
    power = np.zeros(100)
    power[19], power[29], power[39] = 4.0, 9.0, 1.0  # bins 20, 30, 40
    assert harmonic_distortion(power) == 0
    power[59] = 2.25  # twice bin 30
    assert harmonic_distortion(power) == pytest.approx(0.5)


def test_noise_orders_series() -> None:
    noise = np.random.default_rng(1).standard_normal(LENGTH)
    entropies = [spectrum_of((wave(1.0) + s * noise)[None]).entropy for s in (0.0, 0.1, 0.5, 2.0)]  # type: ignore[union-attr]
    assert entropies == sorted(entropies)
    white = spectrum_of(noise[None])
    walk = spectrum_of(np.cumsum(noise)[None])
    assert white is not None
    assert walk is not None
    assert white.entropy > 0.85 > 0.5 > walk.entropy


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_neither_scale_nor_level_matters(scale: float) -> None:
    row = (wave(1.0, 0.4) + 0.3 * np.random.default_rng(2).standard_normal(LENGTH))[None]
    want, found = spectrum_of(row), spectrum_of(scale * (row + 5))
    assert want is not None
    assert found is not None
    assert found.entropy == pytest.approx(want.entropy, rel=1e-6)
    assert found.distortion == pytest.approx(want.distortion, rel=1e-6)


def test_gaps_are_bridged_and_empty_windows_left_out() -> None:
    rows = np.array([[np.nan, 1, np.nan, 3, np.nan], [np.nan] * 5])
    assert filled(rows).tolist() == [[1, 1, 2, 3, 3]]
    gappy = wave(1.0)
    gappy[100:103] = np.nan
    found = spectrum_of(np.stack([gappy, np.full(LENGTH, np.nan), np.ones(LENGTH)]))
    alone = spectrum_of(gappy[None])
    assert found is not None
    assert alone is not None
    assert found.entropy == alone.entropy
    assert spectrum_of(np.full((3, LENGTH), np.nan)) is None
    assert spectrum_of(np.ones((3, LENGTH))) is None
    assert spectrum_of(np.zeros((0, LENGTH))) is None


def test_periodogram_has_no_bin_of_frequency_zero() -> None:
    frequency, power = periodogram(np.stack([wave(1.0) + 100]))
    assert frequency[0] == pytest.approx(1 / LENGTH)
    assert power.shape == (1, LENGTH // 2)
    assert power[0].argmax() + 1 == LENGTH // 48
