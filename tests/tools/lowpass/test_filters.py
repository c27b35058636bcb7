"""The parts of the low-pass view against closed forms and naive sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tsmerge_export.tools.lowpass.filters import (
    Merging,
    degrees_of_freedom,
    gaussian,
    merge_and_unmerge,
    sigma_for,
)
from tsmerge_export.tools.lowpass.signals import NOISES, clean
from tsmerge_export.tools.lowpass.spectrum import bands, cutoff, dct, inverse_dct
from tsmerge_export.tools.lowpass.study import effect

RNG = np.random.default_rng(7)
QUARTER = Merging(Fraction(1, 4), 4)
HALVING = Merging(Fraction(1, 2), 3)


@pytest.mark.parametrize("length", [1, 2, 7, 16, 33])
def test_cosine_transform(length: int) -> None:
    """Against its definition, coefficient by coefficient."""
    x = RNG.standard_normal((3, length))
    time = np.arange(length)
    want = np.stack(
        [
            (x * np.cos(np.pi * n * (2 * time + 1) / (2 * length))).sum(1)
            * np.sqrt((1 if n == 0 else 2) / length)
            for n in range(length)
        ],
        axis=1,
    )
    np.testing.assert_allclose(dct(x), want, atol=1e-12)
    np.testing.assert_allclose(inverse_dct(dct(x)), x, atol=1e-12)
    np.testing.assert_allclose((dct(x) ** 2).sum(1), (x**2).sum(1))


@pytest.mark.parametrize("sigma", [1.5, 4.0])
def test_gaussian_is_the_convolution_with_a_bell(sigma: float) -> None:
    x = RNG.standard_normal((2, 60))
    mirrored = np.concatenate([x[:, ::-1], x, x[:, ::-1]], axis=1)
    offset = np.arange(-59, 60)
    bell = np.exp(-0.5 * (offset / sigma) ** 2)
    bell /= bell.sum()
    want = np.stack([np.convolve(row, bell, "same")[60:120] for row in mirrored])
    np.testing.assert_allclose(gaussian(x, sigma), want, atol=1e-3)


def test_white_noise_through_the_gaussian_has_its_transfer_function() -> None:
    """Power of every coefficient times exp(-(2 pi f sigma)^2), coefficient n at n / 2N cycles per step."""
    noise = NOISES["white"](5, 128, 16, RNG)
    frequency = np.arange(128) / 256
    want = (dct(noise) ** 2) * np.exp(-((2 * np.pi * frequency * 2.5) ** 2))
    np.testing.assert_allclose(dct(gaussian(noise, 2.5)) ** 2, want, atol=1e-12)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.316, 0.05, 0.01])
def test_sigma_leaves_as_many_degrees_of_freedom(share: float) -> None:
    """trace(S'S) of the filter's own matrix, one column for each unit vector."""
    length = 400
    sigma = sigma_for(share, length)
    matrix = gaussian(np.eye(length), sigma).T
    np.testing.assert_allclose(np.trace(matrix.T @ matrix), share * length, rtol=1e-9)
    np.testing.assert_allclose(degrees_of_freedom(sigma, length), share * length, rtol=1e-9)
    if (
        share < 0.4
    ):  # the integral of the squared gain over all frequencies, where the band's end does not matter
        # The sum has half a term more at frequency 0 than the integral.
        np.testing.assert_allclose(sigma, 1 / (2 * np.sqrt(np.pi) * (share - 0.5 / length)), rtol=1e-3)
    assert sigma_for(1.0, length) == 0.0


def test_averages_over_blocks_have_as_many_degrees_as_blocks() -> None:
    """Merging every pair, three times, is the mean over blocks of eight: a projection with N / 8 degrees."""
    x = RNG.standard_normal((4, 64))
    result, left = merge_and_unmerge(x, HALVING)
    assert left == 8
    want = np.repeat(x.reshape(4, 8, 8).mean(2), 8, axis=1)
    np.testing.assert_allclose(result, want, atol=1e-5)
    projection = np.kron(np.eye(8), np.full((8, 8), 1 / 8))
    assert np.trace(projection.T @ projection) == pytest.approx(left)


def naive(row: np.ndarray, ratio: float, steps: int) -> tuple[np.ndarray, int]:
    """Merge the nearest pairs of neighbours, by value, in lists."""
    tokens = [[i] for i in range(len(row))]
    values = [float(v) for v in row]
    for _ in range(steps):
        pairs = [(abs(values[i] - values[i + 1]), i) for i in range(0, len(values) - 1, 2)]
        gone = {i for _, i in sorted(pairs)[: int(len(values) * ratio)]}
        both = []
        for i, members in enumerate(tokens):
            if i in gone:
                tokens[i + 1] = members + tokens[i + 1]
            else:
                both.append((members, float(np.mean(row[members]))))
        tokens, values = [m for m, _ in both], [v for _, v in both]
    out = np.empty(len(row))
    for members, value in zip(tokens, values, strict=True):
        out[members] = value
    return out, len(tokens)


@pytest.mark.parametrize("seed", range(5))
def test_merging_is_the_mean_of_nearest_neighbours(seed: int) -> None:
    row = np.random.default_rng(seed).standard_normal(61)
    want, left = naive(row, 0.25, 4)
    result, got_left = merge_and_unmerge(row[None], QUARTER)
    assert got_left == left
    np.testing.assert_allclose(result[0], want, atol=1e-5)


def test_a_shift_and_a_scale_change_nothing() -> None:
    x = RNG.standard_normal((2, 64))
    plain, _ = merge_and_unmerge(x, QUARTER)
    moved, _ = merge_and_unmerge(1e4 + 300 * x, QUARTER)
    np.testing.assert_allclose(moved, 1e4 + 300 * plain, rtol=1e-6)


@pytest.mark.parametrize("how", [QUARTER, HALVING, Merging(Fraction(1, 4), 3, 8, "cosine", 4)])
def test_a_constant_stays_exactly(how: Merging) -> None:
    x = np.full((2, 64), 3.7)
    assert np.array_equal(merge_and_unmerge(x, how)[0], x)
    np.testing.assert_allclose(gaussian(x, 2.0), x, rtol=1e-12)


def test_a_slow_sinusoid_survives_and_a_fast_one_does_not() -> None:
    time = np.arange(1024)
    slow, fast = (np.sin(2 * np.pi * time / period)[None] for period in (512, 4))
    kept = effect("slow", None, slow, QUARTER)
    assert kept.low["merged"] == pytest.approx(1, abs=0.01)
    assert kept.change["merged"] < 0.001
    # Period 4 is 0, 1, 0, -1: pairs are equally far apart, and merging all of them leaves half of the power.
    result, _ = merge_and_unmerge(fast, Merging(Fraction(1, 2), 1))
    np.testing.assert_allclose(result[0, :4], [0.5, 0.5, -0.5, -0.5], atol=1e-6)


def test_signals() -> None:
    count, length, period = 400, 512, 32
    made = {name: make(count, length, period, RNG) for name, make in NOISES.items()}
    for values in made.values():
        assert values.var(axis=1).mean() == pytest.approx(1, abs=0.03)
    power = np.abs(np.fft.rfft(made["pink"])[:, 1:]) ** 2
    middle = power.mean(0)
    slope = np.polyfit(np.log(np.arange(1, 256)), np.log(middle[:255]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)
    flat = (np.abs(np.fft.rfft(made["white"])[:, 1:]) ** 2).mean(0)
    assert flat[:128].mean() == pytest.approx(flat[128:].mean(), rel=0.03)
    lines = (np.abs(np.fft.rfft(made["harmonic"])) ** 2).mean(0)
    overtones = np.arange(2, 16) * length // period
    np.testing.assert_allclose(lines[overtones], lines[overtones[0]], rtol=1e-9)
    assert np.delete(lines, overtones).max() < 1e-15 * lines.max()
    np.testing.assert_allclose(made["harmonic"].var(axis=1), 1)
    both = clean(3, 4 * period, period, RNG)
    np.testing.assert_allclose(both.var(axis=1), 1)
    lines = np.abs(np.fft.rfft(both)[0])
    assert sorted(np.flatnonzero(lines > 1e-6)) == [1, 4]
    assert lines[4] / lines[1] == pytest.approx(2)


def test_linear_gain_and_cutoff_of_the_gaussian() -> None:
    noise = NOISES["white"](200, 1024, 64, RNG)
    sigma = 1.3
    filtered = gaussian(noise, sigma)
    found = bands(noise, filtered, filtered)
    want = np.exp(-0.5 * (2 * np.pi * found.frequency * sigma) ** 2)
    np.testing.assert_allclose(found.linear_gaussian, want, atol=0.02)
    np.testing.assert_allclose(found.original, 1, atol=0.4)
    assert found.share.sum() == pytest.approx(1)
    half = np.sqrt(np.log(2)) / (2 * np.pi * sigma)
    assert cutoff(found.frequency, found.linear_gaussian, found.share) == pytest.approx(half, rel=0.03)
    assert cutoff(found.frequency, np.ones_like(want), found.share) is None
    assert cutoff(found.frequency, np.zeros_like(want), found.share) == found.frequency[0]
    silent = np.where(found.frequency > 0.01, found.share, 0.0)
    assert cutoff(found.frequency, np.where(silent > 0, 1.0, 0.0), silent) is None


def test_figures_of_an_effect() -> None:
    """Shares and errors by sums in the time domain and by the naive transform."""
    reference = clean(6, 256, 32, RNG)
    signals = reference + 0.5 * NOISES["white"](6, 256, 32, RNG)
    found = effect("white", 0.5, signals, QUARTER, reference)
    merged, left = merge_and_unmerge(signals, QUARTER)
    assert (found.tokens, found.left, found.edge) == (256, left, left / 512)
    assert found.change["merged"] == pytest.approx(
        ((merged - signals) ** 2).mean() / signals.var(axis=1).mean()
    )
    assert found.error is not None
    assert found.error["original"] == pytest.approx(((signals - reference) ** 2).mean(), rel=1e-6)
    assert found.error["merged"] == pytest.approx(((merged - reference) ** 2).mean(), rel=1e-6)
    matrix = np.cos(np.pi * np.outer(2 * np.arange(256) + 1, np.arange(256)) / 512)
    matrix /= np.linalg.norm(matrix, axis=0)
    low = np.arange(1, 256) / 512 < left / 512
    before, after = (((x @ matrix)[:, 1:] ** 2).sum(0) for x in (signals, merged))
    assert found.low["merged"] == pytest.approx(after[low].sum() / before[low].sum())
    assert found.high["merged"] == pytest.approx(after[~low].sum() / before[~low].sum())


def test_merging_adapts_and_the_gaussian_does_not() -> None:
    """The stronger the noise, the lower the frequency that merging cuts at."""
    reference = clean(16, 1024, 64, np.random.default_rng(1))
    noise = NOISES["white"](16, 1024, 64, np.random.default_rng(2))
    found = [
        effect("white", level, reference + level * noise, QUARTER, reference) for level in (0.1, 0.3, 1.0)
    ]
    cuts = [one.cutoff["merged"] for one in found]
    assert cuts[0] is not None and cuts[1] is not None and cuts[2] is not None
    assert cuts[0] > 1.2 * cuts[1] and cuts[1] > 1.2 * cuts[2]
    fixed = [one.cutoff["gaussian"] for one in found]
    np.testing.assert_allclose(fixed, fixed[0], rtol=0.03)
