"""The host's part of a decoder over lagged values: its features step by step, and what comes next of its output.

As ``generate`` of transformers' Time Series Transformer and Informer, where every step runs the decoder over all steps
drawn so far; and as that of Autoformer, where it runs once for all steps. In numpy; the decoder is whatever runs its
graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.forecast import distributions
from tsmerge_export.forecast.history import channelled, clock

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
#: (parameters ``[B, S, C]`` by name, loc and scale ``[B, 1, C]``) -> values ``[B, S, C]`` in the series' unit.
Choose = Callable[[distributions.Parameters, Floats, Floats], Floats]

#: In front of the names of a distribution's parameters, where they are outputs of a graph.
PREFIX = "distribution_"
#: Of a pipeline's settings: the decoder is told of no draw, and gives the distributions of all steps at once.
AT_ONCE = {"decoding": "at once"}
#: Among its inputs, where the model has them.
FUTURE = "future_time_features"


class Spec(Protocol):
    """What is known of a graph's input."""

    @property
    def name(self) -> str: ...

    @property
    def dims(self) -> tuple[str | int, ...]: ...


def encoder_inputs(
    specs: Sequence[Spec],
    series: Floats,
    *,
    spread: bool = False,
    cardinality: Sequence[int] = (),
    features: Mapping[str, Any] | None = None,
) -> Arrays:
    """Series ``[B, L]``, NaN is missing, as the encoder's inputs.

    Args:
        specs: of the encoder's inputs. spread, series: see :func:`~tsmerge_export.forecast.history.channelled`.
        cardinality: of the static categories. features: inputs that are known, by name; the others are made up: waves
            for a calendar (:func:`~tsmerge_export.forecast.history.clock`), the first category, 0.
    """
    dims = {spec.name: spec.dims for spec in specs}
    _, length, *channels = dims["past_values"]
    batch, steps = len(series), int(length)
    out = channelled(series, steps, int(channels[0]) if channels else 1, spread=spread)
    if not channels:
        out = {name: value[..., 0] for name, value in out.items()}
    row = np.arange(batch)[:, None] if spread else np.zeros((batch, 1), np.int64)
    if "past_time_features" in dims:
        wave = clock(-steps, steps, int(dims["past_time_features"][-1]))
        out["past_time_features"] = np.repeat(wave[None], batch, axis=0)
    if "static_categorical_features" in dims:
        count = int(dims["static_categorical_features"][-1])
        out["static_categorical_features"] = row % np.asarray(cardinality or [1] * count)
    if "static_real_features" in dims:
        count = int(dims["static_real_features"][-1])
        out["static_real_features"] = np.repeat(row / 8, count, axis=1).astype(np.float32)
    out |= features or {}
    return {spec.name: np.ascontiguousarray(out[spec.name]) for spec in specs}


class _Paths:
    """``samples`` paths for each series, step by step.

    Args:
        settings: of the family's pipeline. feed, encoded: the encoder's inputs and outputs.
        times: features of the future steps ``[B, T, F]``; None makes them up.

    Attributes:
        loc, scale: of the series, ``[B, 1, C]``. known: steps whose values are known.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        feed: Arrays,
        encoded: Arrays,
        samples: int,
        times: Floats | None = None,
    ) -> None:
        batch = len(feed["past_values"])
        self.loc, self.scale = (encoded[name].reshape(batch, 1, -1) for name in ("loc", "scale"))
        self._samples, self.known = samples, 0
        self._begin(settings, feed, encoded, _future(settings, batch) if times is None else times)

    def _begin(self, settings: Mapping[str, Any], feed: Arrays, encoded: Arrays, times: Floats) -> None:
        raise NotImplementedError


class Unrolled(_Paths):
    """By a decoder that reads the values before a step: its features are filled step by step."""

    def _begin(self, settings: Mapping[str, Any], feed: Arrays, encoded: Arrays, times: Floats) -> None:
        past, samples = feed["past_values"], self._samples
        batch, length = past.shape[:2]
        past = past.reshape(batch, length, -1)
        lags, steps = np.asarray(settings["lags_sequence"]), int(settings["prediction_length"])
        self._lags, self._last = lags, int(lags.max())
        self._paths = np.empty((batch, samples, self._last + steps, past.shape[2]), np.float32)
        self._paths[:, :, : self._last] = ((past[:, -self._last :] - self.loc) / self.scale)[:, None]
        static = np.repeat(encoded["static_features"][:, None], steps, axis=1)
        known = np.concatenate([static, times], -1).astype(np.float32)
        self._lagged = len(lags) * past.shape[2]
        self._features = np.empty((batch, samples, steps, self._lagged + known.shape[2]), np.float32)
        self._features[..., self._lagged :] = known[:, None]
        self._states = {name: encoded[name] for name in ("last_hidden_state", "encoder_log_size")}

    def feed(self, samples: int | None = None) -> Arrays:
        """Inputs of the decoder for the step after the known ones and all before it, of the first paths."""
        at = self._last + self.known - self._lags
        lagged = self._paths[:, :, at]  # [B, S, lags, C], to be told apart by channel first
        self._features[:, :, self.known, : self._lagged] = lagged.swapaxes(2, 3).reshape(
            *lagged.shape[:2], -1
        )
        features = self._features[:, :samples, : self.known + 1]
        return {"features": np.ascontiguousarray(features), **self._states}

    def distribution(self, decode: Run) -> dict[str, Floats]:
        """Of the next step: parameters ``[B, S, C]`` by name."""
        # All paths of a series begin alike: the first step is computed once for each series.
        found = _parameters(decode(self.feed(samples=None if self.known else 1)))
        alike = 1 if self.known else self._paths.shape[1]
        return {name: np.repeat(value[:, :, -1], alike, axis=1) for name, value in found.items()}

    def append(self, values: Floats) -> None:
        """The values ``[B, S, C]`` of the next step, in the series' unit."""
        self._paths[:, :, self._last + self.known] = (values - self.loc) / self.scale
        self.known += 1


class AtOnce(_Paths):
    """By a decoder that gives all steps at once."""

    def _begin(self, settings: Mapping[str, Any], feed: Arrays, encoded: Arrays, times: Floats) -> None:
        self._inputs = at_once(feed, encoded, times)
        self._found: dict[str, Floats] = {}

    def distribution(self, decode: Run) -> dict[str, Floats]:
        """See :meth:`Unrolled.distribution`."""
        self._found = self._found or _parameters(decode(self._inputs))
        step = self.known
        return {
            name: np.repeat(value[:, None, step], self._samples, axis=1)
            for name, value in self._found.items()
        }

    def append(self, values: Floats) -> None:
        """The step is over; nothing hangs on its values."""
        self.known += 1


def at_once(feed: Arrays, encoded: Arrays, times: Floats) -> Arrays:
    """Inputs of a decoder of all steps at once.

    Args:
        feed, encoded: the encoder's inputs and outputs. times: features of the future steps ``[B, T, F]``; no features
            are no input.
    """
    known = {FUTURE: np.ascontiguousarray(times, np.float32)} if times.shape[2] else {}
    past = {name: value for name, value in feed.items() if name in ("past_values", "past_time_features")}
    names = ("last_hidden_state", "loc", "scale", "static_features")
    return past | known | {name: encoded[name] for name in names}


def _future(settings: Mapping[str, Any], batch: int) -> Floats:
    """Made-up features of the future steps ``[B, T, F]``."""
    steps, features = int(settings["prediction_length"]), int(settings["time_features"])
    return np.broadcast_to(clock(0, steps, features), (batch, steps, features))


def _parameters(found: Arrays) -> dict[str, Floats]:
    """A distribution's parameters among a decoder's outputs, by name."""
    return {name.removeprefix(PREFIX): value for name, value in found.items() if name.startswith(PREFIX)}


def follow(
    settings: Mapping[str, Any],
    feed: Arrays,
    encoded: Arrays,
    decode: Run,
    choose: Choose,
    *,
    samples: int,
    steps: int,
    times: Floats | None = None,
    tell: Callable[[int], None] | None = None,
) -> Floats:
    """Paths ``[B, S, steps, C]``: every step the decoder's distribution, and what ``choose`` makes of it.

    Args:
        decode: runs the decoder. tell: called with the number of steps done. The others are as for :class:`Unrolled`.
    """
    kind = AtOnce if settings.items() >= AT_ONCE.items() else Unrolled
    run = kind(settings, feed, encoded, samples, times)
    out = []
    for step in range(steps):
        values = choose(run.distribution(decode), run.loc, run.scale)
        if step + 1 < steps:
            run.append(values)
        out.append(values)
        if tell is not None:
            tell(step + 1)
    return np.stack(out, axis=2)


def mean_path(
    settings: Mapping[str, Any], feed: Arrays, encoded: Arrays, decode: Run, times: Floats | None = None
) -> Floats:
    """A point forecast ``[B, H]`` of the first channel: the mean of every step's distribution in place of a draw."""
    name = distributions.check(settings["distribution"])

    def choose(found: distributions.Parameters, loc: Floats, scale: Floats) -> Floats:
        return distributions.mean(name, found, loc, scale)

    steps = int(settings["prediction_length"])
    return follow(settings, feed, encoded, decode, choose, samples=1, steps=steps, times=times)[:, 0, :, 0]


def sample_paths(
    settings: Mapping[str, Any],
    feed: Arrays,
    encoded: Arrays,
    decode: Run,
    *,
    samples: int,
    steps: int,
    seed: int,
    first: int = 0,
    times: Floats | None = None,
    tell: Callable[[int], None] | None = None,
) -> Floats:
    """Sample paths ``[B, S, steps]`` of the first channel; every series and step draws from a stream of its own.

    Args:
        seed: >= 0. first: number of the first series in the seed's streams.
    """
    name = distributions.check(settings["distribution"])
    step = 0

    def choose(found: distributions.Parameters, loc: Floats, scale: Floats) -> Floats:
        nonlocal step
        rows = [
            distributions.draw(
                name, {key: value[row] for key, value in found.items()}, loc[row], scale[row],
                np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(first + row, step))),
            )
            for row in range(len(loc))
        ]  # fmt: skip
        step += 1
        return np.stack(rows)

    found = follow(
        settings, feed, encoded, decode, choose, samples=samples, steps=steps, times=times, tell=tell
    )
    return np.ascontiguousarray(found[..., 0])
