"""Which live modules merge: a register that families look into, and :mod:`tsmerge_export.eager.apply` fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from weakref import WeakKeyDictionary

from torch import nn

from tsmerge_export.merge.run import MergeRun


class Handle(Protocol):
    """What a family's ``instrument`` returns: a hook's handle, or whatever else takes a change back."""

    def remove(self) -> None:
        """Take it back."""


#: Core module -> its run and the hooks that feed it; gone with the module.
APPLIED: WeakKeyDictionary[nn.Module, tuple[MergeRun, Sequence[Handle]]] = WeakKeyDictionary()


def run_of(core: nn.Module) -> MergeRun | None:
    """The run of a family's module that merging is applied to, else None."""
    run, _ = APPLIED.get(core, (None, ()))
    return run
