"""A component as forecasters run it, of which what goes in and comes out in every run is shown to somebody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.components import Bound, ComponentSession

#: Shown the inputs and outputs of a run, by name.
Shown = Callable[[Mapping[str, NDArray[Any]]], None]


class WatchedSession:
    """A :class:`~tsmerge_export.backends.components.StepSession` around another session.

    Args:
        session: it may have more outputs than its component. names: those of the component.

    Attributes:
        inputs, outputs: of the component.
    """

    def __init__(self, session: ComponentSession, names: Collection[str], shown: Shown) -> None:
        self._session, self._shown = session, shown
        self.inputs = session.inputs
        self.outputs = tuple(one for one in session.outputs if one.name in names)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name of inputs by name."""
        found = self._session.run(inputs)
        self._shown({**inputs, **found})
        return {one.name: found[one.name] for one in self.outputs}

    def bound(self) -> Bound:
        """Runs over arrays that are bound once per size; what comes out is copied there."""
        return _WatchedRuns(self)


class _WatchedRuns:
    def __init__(self, session: WatchedSession) -> None:
        self._session = session
        self._inputs: dict[str, NDArray[Any]] = {}
        self._outputs: dict[str, NDArray[Any]] = {}

    def bind(self, name: str, array: NDArray[Any], *, output: bool = False) -> None:
        (self._outputs if output else self._inputs)[name] = array

    def run(self) -> None:
        found = self._session.run(self._inputs)
        for name, array in self._outputs.items():
            np.copyto(array, found[name])
