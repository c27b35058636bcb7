"""The distributions that transformers' forecasters predict, in numpy: their means, and draws from them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.errors import UsageError

Floats = NDArray[np.float32]
Parameters = Mapping[str, Floats]

#: By the name in ``distribution_output`` of a config.
PARAMETERS = {
    "student_t": ("df", "loc", "scale"),
    "normal": ("loc", "scale"),
    "negative_binomial": ("total_count", "logits"),
}

# Beyond what numpy's Poisson takes (2**63), far beyond any count in float32.
_LARGEST_RATE = 1e18


def check(name: object) -> str:
    """A name of :data:`PARAMETERS`. Raises UsageError for another."""
    if name not in PARAMETERS:
        raise UsageError(
            f"distribution {name!r} is not known ({', '.join(PARAMETERS)}); export the bundle again"
        )
    return str(name)


def mean(name: str, parameters: Parameters, loc: Floats, scale: Floats) -> Floats:
    """Expected values of series.

    Args:
        name: of the distribution. parameters: arrays of one shape, by the names in :data:`PARAMETERS`.
        loc, scale: of the series, broadcast to the parameters. A negative binomial has no use for ``loc``.

    Returns:
        float32 of the shape of the parameters.
    """
    if name == "negative_binomial":
        return _as_float32(parameters["total_count"] * np.exp(parameters["logits"]) * scale)
    return _as_float32(parameters["loc"] * scale + loc)


def draw(
    name: str, parameters: Parameters, loc: Floats, scale: Floats, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A value from each of the distributions; arguments and shape as for :func:`mean`."""
    if name == "negative_binomial":
        # A Poisson variable whose rate is Gamma distributed, as PyTorch draws it.
        gamma = rng.standard_gamma(parameters["total_count"].astype(np.float64))
        rate = gamma * np.exp(parameters["logits"].astype(np.float64)) * scale
        return _as_float32(rng.poisson(np.minimum(np.nan_to_num(rate), _LARGEST_RATE)))
    if name == "normal":
        noise = rng.standard_normal(parameters["loc"].shape)
    else:
        noise = rng.standard_t(parameters["df"].astype(np.float64))
    return _as_float32((parameters["loc"] + noise * parameters["scale"]) * scale + loc)


def _as_float32(values: NDArray[np.generic]) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32)
