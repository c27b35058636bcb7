"""What the first two steps do to weights, in place: the smallest become zero, the others one of a few values.

The recipe is that of deep compression (Han et al., arXiv 1510.00149, sections 2 and 3) and of the tiny time-series
transformer (arXiv 2303.08951), without training in between. Pruning is PyTorch's, k-means is SciPy's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tsmerge_export.errors import MissingDependencyError, UnsupportedError
from tsmerge_export.precision.products import LEAST

#: K-means looks at so many weights of a matrix at most, evenly picked; every weight then goes to the nearest centre.
_SEEN = 65_536
_ROUNDS = 20


def prunable(model: nn.Module) -> list[Tensor]:
    """The weights of linear layers of at least 16 rows and columns, each once; tables that are looked up are left out,
    also where a layer shares one.

    Raises:
        UnsupportedError: there are none, or one holds what is no number.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    found = {
        id(module.weight): module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and min(module.weight.shape) >= LEAST
        and id(module.weight) not in tables
    }
    if not found:
        raise UnsupportedError("the model has no linear layer that is large enough to be pruned or clustered")
    for name, weight in model.named_parameters():
        if id(weight) in found and not bool(weight.isfinite().all()):
            raise UnsupportedError(
                f"{name} holds numbers that are not finite; nothing there can be compressed"
            )
    return list(found.values())


def prune_smallest(weights: Sequence[Tensor], share: float) -> None:
    """Set the smallest of all weights to zero, over all matrices together.

    Args:
        weights: changed in place. share: of them, from 0 to 1.
    """
    with torch.no_grad():
        flat = torch.cat([weight.reshape(-1) for weight in weights])
        kept = prune.L1Unstructured(amount=share).compute_mask(flat, torch.ones_like(flat))
        for weight, mask in zip(weights, kept.split([weight.numel() for weight in weights]), strict=True):
            weight.mul_(mask.view_as(weight))


def k_means() -> Callable[..., Any]:
    """SciPy's. Raises MissingDependencyError."""
    try:
        from scipy.cluster.vq import kmeans2
    except ImportError:
        raise MissingDependencyError(
            "tsmerge compress clusters with scipy; pip install 'tsmerge-export[compress]', or leave cluster out of "
            "--steps"
        ) from None
    return kmeans2  # type: ignore[no-any-return]


def cluster(weights: Sequence[Tensor], values: int) -> None:
    """Give every matrix at most so many different values: zero, and the centres that k-means finds of the others.

    The centres start evenly spread over the range, which keeps the few large weights (arXiv 1510.00149, section 3.2).

    Args:
        weights: changed in place. values: at least 2.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    kmeans = k_means()
    with torch.no_grad():
        for weight in weights:
            flat = weight.detach().cpu().double().numpy().reshape(-1)
            own = flat[flat != 0]
            if len(np.unique(own)) < values:
                continue
            seen = own[np.linspace(0, len(own) - 1, min(_SEEN, len(own))).round().astype(int)]
            start = np.linspace(own.min(), own.max(), values - 1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a centre without weights stays where it is
                centres, _ = kmeans(seen, start, iter=_ROUNDS, minit="matrix")
            centres = np.sort(centres)
            nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, flat)
            made = np.where(flat == 0, 0.0, centres[nearest]).astype(np.float32)
            weight.copy_(torch.from_numpy(made).view_as(weight))
