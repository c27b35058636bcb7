"""Strict loading of a state_dict: every weight of the model must come from the file, and the other way round."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from tsmerge_export.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy ``weights`` into ``model``.

    A weight may be missing only where the model shares it with one that is present (tied embeddings). Where the file
    holds different values for weights that the model would share, they are separated. Surplus weights are an error,
    except those that the model's class lists as left over from older versions.

    Raises:
        UsageError: missing or unexpected weights, a shape that differs, NaN, or an integer weight for a float one.
    """
    own = model.state_dict()
    _check_names(model, own, weights, source)
    for name in own.keys() & weights.keys():
        found, wanted = weights[name], own[name]
        if found.shape != wanted.shape:
            raise UsageError(
                f"{source}: weight {name} has shape {list(found.shape)}, the config says {list(wanted.shape)}"
            )
        if found.is_floating_point() != wanted.is_floating_point():
            raise UsageError(f"{source}: weight {name} is {found.dtype}, the model needs {wanted.dtype}")
        if found.is_floating_point() and torch.isnan(found.float() if found.itemsize == 1 else found).any():
            raise UsageError(f"{source}: weight {name} holds NaN")
    for group in _shared(own):
        present = [name for name in group if name in weights]
        first = weights[present[0]] if present else None
        for name in present[1:]:
            if first is not None and not torch.equal(weights[name], first):
                _separate(model, name)
                if model.get_parameter(name) is model.get_parameter(present[0]):
                    raise UsageError(
                        f"{source}: {name} and {present[0]} differ, but the model has one weight for both"
                    )
    model.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


def _check_names(
    model: nn.Module, own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str
) -> None:
    tied = {name: group for group in _shared(own) for name in group}
    missing = [n for n in own if n not in weights and not any(other in weights for other in tied.get(n, ()))]
    if missing:
        raise UsageError(
            f"{source}: {len(missing)} weights are missing, first {missing[0]}; does the config fit the weights?"
        )
    leftovers = [re.compile(p) for p in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()]
    surplus = [n for n in weights if n not in own and not any(p.search(n) for p in leftovers)]
    if surplus:
        raise UsageError(
            f"{source}: {len(surplus)} unexpected weights, first {surplus[0]}; does the config fit the weights?"
        )


def _shared(own: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """Groups of names that stand for one and the same tensor."""
    groups: dict[tuple[int, torch.Size], list[str]] = defaultdict(list)
    for name, tensor in own.items():
        if tensor.numel():
            groups[tensor.data_ptr(), tensor.shape].append(name)
    return (group for group in groups.values() if len(group) > 1)


def _separate(model: nn.Module, name: str) -> None:
    """Give ``name`` a parameter of its own."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    shared = getattr(owner, leaf)
    setattr(owner, leaf, torch.nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad))


def digest(model: nn.Module) -> str:
    """SHA-256 of names and values of a module's weights and buffers, in hexadecimal: the same for the same weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
