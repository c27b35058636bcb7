"""What sessions over a bundle have in common in every runtime: one per component, used directly if it is alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UsageError


class ComponentSession(Protocol):
    """One component, ready to run."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name of inputs by name."""


def names_of(session: ComponentSession) -> dict[str, tuple[str, ...]]:
    """The names of its inputs and outputs, for a repr."""
    return {side: tuple(one.name for one in getattr(session, side)) for side in ("inputs", "outputs")}


SessionT = TypeVar("SessionT", bound=ComponentSession)


class BundleSession(Generic[SessionT]):
    """A bundle in a runtime. With one component it runs directly; otherwise ``session["encoder"].run(...)``.

    Rows of one call that are padded to one length influence each other where tokens merge, see
    :func:`tsmerge_export.load`.
    """

    def __init__(self, bundle: Bundle, sessions: Mapping[str, SessionT]) -> None:
        self.bundle = bundle
        self._sessions = dict(sessions)

    def __repr__(self) -> str:
        if len(self._sessions) != 1:
            return called(type(self).__name__, self.bundle.path, components=self.components)
        return called(type(self).__name__, self.bundle.path, **names_of(self._only()))

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components."""
        return tuple(self._sessions)

    def __getitem__(self, name: str) -> SessionT:
        if name not in self._sessions:
            raise UsageError(f"the bundle has no component {name!r}; it has {', '.join(self._sessions)}")
        return self._sessions[name]

    def _only(self) -> SessionT:
        if len(self._sessions) != 1:
            raise UsageError(
                f"the bundle has several components ({', '.join(self._sessions)}); use session[name]"
            )
        return next(iter(self._sessions.values()))

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs of the only component: name, dtype, dims."""
        return self._only().inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs of the only component: name, dtype, dims."""
        return self._only().outputs

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the only component, by the names of its inputs; outputs by name."""
        return self._only().run(inputs)
