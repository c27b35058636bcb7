"""What sessions over a bundle have in common in every runtime: one per component, used directly if it is alone."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from fractions import Fraction
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from numpy.typing import NDArray

from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.run_time import read


class ComponentSession(Protocol):
    """One component, ready to run."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name of inputs by name."""


class Bound(Protocol):
    """A component whose inputs and outputs are arrays of the caller's: it reads and writes them in place."""

    def bind(self, name: str, array: NDArray[Any], *, output: bool = False) -> None:
        """An input or output by name, contiguous, of the size that it has in the next runs."""

    def run(self) -> None:
        """From what the bound inputs hold now to the bound outputs."""


class StepSession(ComponentSession, Protocol):
    """A component that is run in a loop."""

    def bound(self) -> Bound:
        """Runs over arrays that are bound once per size."""


def names_of(session: ComponentSession) -> dict[str, tuple[str, ...]]:
    """The names of its inputs and outputs, for a repr."""
    return {side: tuple(one.name for one in getattr(session, side)) for side in ("inputs", "outputs")}


SessionT = TypeVar("SessionT", bound=ComponentSession)
BundleT = TypeVar("BundleT", bound="BundleSession[Any]")


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

    @property
    def default_ratio(self) -> Fraction | None:
        """Of a bundle whose ratio is chosen at run time, what it is where nobody chooses; None for all others."""
        found = (getattr(one, "default_ratio", None) for one in self._sessions.values())
        return next((ratio for ratio in found if ratio is not None), None)

    def run(self, inputs: Mapping[str, Any], ratio: Any = None) -> dict[str, NDArray[Any]]:
        """Run the only component, by the names of its inputs; outputs by name.

        Args:
            ratio: of a bundle whose ratio is chosen at run time, the share of the tokens that each merge removes, from
                0 to 1/2; None is ``.default_ratio``.

        Raises:
            UsageError: an input or the ratio does not fit, or the ratio is not chosen at run time.
        """
        only = self._only()
        if ratio is None:
            return only.run(inputs)
        chosen_ratio(ratio, self.default_ratio, self.bundle.path)
        return only.run(inputs, ratio=ratio)  # type: ignore[call-arg]

    def at(self: BundleT, ratio: Any) -> BundleT:
        """The same session with another default for the ratio; what is open is shared.

        Raises:
            UsageError: no ratio from 0 to 1/2, or the bundle's is not chosen at run time.
        """
        chosen = chosen_ratio(ratio, self.default_ratio, self.bundle.path)
        made = copy(self)
        made._sessions = {name: copy(one) for name, one in self._sessions.items()}
        for one in made._sessions.values():
            if getattr(one, "default_ratio", None) is not None:
                one.default_ratio = chosen
        return made


def chosen_ratio(ratio: Any, default: Fraction | None, where: object) -> Fraction | None:
    """The ratio of a run: what was given, else the default; None where it is not chosen at run time.

    Raises:
        UsageError: no ratio from 0 to 1/2, or one for a file that takes none.
    """
    if ratio is None:
        return default
    if default is None:
        raise UsageError(
            f"{where}: its ratio was fixed when it was exported, so that ratio has no effect; leave it out, or export "
            "with --ratio runtime"
        )
    return read(ratio)


#: A bundle whose components a forecaster can run, in whatever runtime.
Session: TypeAlias = BundleSession[StepSession]
