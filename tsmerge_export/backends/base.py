"""The protocol of a back end, and what the compiler hands to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tsmerge_export.backends.components import BundleSession, StepSession
from tsmerge_export.backends.describe import Block
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends import Providers
    from tsmerge_export.backends.target import Target

Run = Callable[[Mapping[str, Any]], dict[str, Any]]
#: Told how many components are done, of how many.
Told = Callable[[int, int], None]


class Prover(Protocol):
    """The parity verdict of a component: the compiler's, so that no back end judges itself by rules of its own."""

    def file(self, path: Path) -> dict[str, Any]:
        """A file with merge nodes, in ONNX Runtime, float32. Returns the verdict, JSON-ready. Raises VerdictError."""

    def values(
        self, run: Run, dtype: str, low: Sequence[int] | None = None, high: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """What a back end computes, by name, where batch and length lie within ``low`` and ``high``.

        Args:
            dtype: of matrix products, a name of :data:`~tsmerge_export.backends.target.DTYPES`.
            low, high: None where it takes any.

        Returns:
            The verdict, JSON-ready. Raises VerdictError.
        """

    def at(self, path: Path, shape: OneShape) -> dict[str, Any]:
        """A file with merge nodes that takes one shape alone, in ONNX Runtime, float32, at that shape.

        Returns:
            The verdict, JSON-ready. Raises VerdictError.
        """

    def in_a_row(self, sessions: Mapping[str, StepSession]) -> dict[str, Any]:
        """What a back end computes by all components in a row, as a forecaster runs them, in float32.

        Returns:
            The verdict, JSON-ready. Raises VerdictError.
        """


@dataclass(frozen=True)
class Part:
    """One component of a bundle, exported and proved in its portable form.

    Attributes:
        unmerged: the portable file without merging. merged: the artefact; the same file where nothing merges.
        merges: whether it merges at all.
        longest: time steps that the model reads; more are cut. None for a graph from a file, of which it is not known.
        removed: at a length the merges, by name, and how many tokens each removes at once.
        shapes: of a target of one shape, the inputs' at it; else None.
        prove: the verdict.
    """

    name: str
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    unmerged: Path
    merged: Path
    merges: bool
    longest: int | None
    removed: Callable[[int], Sequence[tuple[str, int]]]
    prove: Prover
    shapes: Mapping[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class PluginNode:
    """How merge nodes are called in files of a back end, and what they have beside the operator's attributes."""

    domain: str
    op_type: str
    attributes: tuple[str, ...] = ()


class Backend(ABC):
    """What a bundle is made for and run by. One object per back end, without state."""

    #: As of ``--runtime`` and :func:`tsmerge_export.load`.
    name: ClassVar[str]
    #: Whether a bundle holds more for it than the portable files: files or verdicts.
    beside: ClassVar[bool] = True
    #: Whether it takes files whose ratio is chosen at run time; then its sessions have a ``default_ratio``, and their
    #: ``run`` an argument ``ratio``.
    run_time: ClassVar[bool] = False
    #: Else why not, behind its name.
    why_fixed: ClassVar[str] = "takes no ratio when a file runs"
    #: Whether the portable files must have their functions written in place.
    inlined: ClassVar[bool] = False
    #: Whether it runs all components; else those that merge alone, and a forecaster runs the others in ONNX Runtime.
    whole: ClassVar[bool] = False
    #: Whether it takes files that ONNX Runtime's quantiser made.
    low_precision: ClassVar[bool] = False
    #: Whether :meth:`build` writes nothing and only proves the portable files: validating a bundle does so again.
    proves_alone: ClassVar[bool] = False
    #: Whether it takes graphs from files, of which no longest length is known.
    graphs: ClassVar[bool] = False
    #: Whether its files may be made for one batch and length, constants in them (``--static``).
    one_shape: ClassVar[bool] = False
    #: Options of a :class:`~tsmerge_export.backends.target.Target` that it does not have (``dtype``, ``shapes``,
    #: ``capabilities``, ``plugin``, ``inline``), with the end of the sentence that refuses one.
    without: ClassVar[Mapping[str, str]] = {}
    #: Its merge nodes, where they are not those of the portable file.
    node: ClassVar[PluginNode | None] = None

    @abstractmethod
    def check(self, target: Target, merge: MergeConfig) -> None:
        """Fail on what cannot work, before any work; options of ``without`` are refused already.

        Raises:
            UnsupportedError: a method or an option that it cannot run. MissingDependencyError: it is not installed.
        """

    @abstractmethod
    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        """The form of a portable file that it takes; the file is not changed.

        Raises:
            UnsupportedError: an operator that it cannot run. MissingDependencyError: a tool is not installed.
        """

    @abstractmethod
    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        """Write what a bundle holds for it, each file proved or made by steps from a proved one.

        Args:
            folder: of the bundle. scratch: for files that are not part of it.

        Returns:
            The manifest's ``target``, JSON-ready: ``runtime``, ``dtype``, ``components`` by name. What of it
            :class:`~tsmerge_export.bundle.target.TargetEntry` does not name is kept as it is.

        Raises:
            VerdictError: it computes something else. UnsupportedError, UsageError: it cannot build that.
        """

    @abstractmethod
    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> BundleSession[Any]:
        """A session over a bundle whose hashes were compared; see :func:`tsmerge_export.load`."""

    def forecaster(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> BundleSession[Any]:
        """All components, for a forecaster: in ONNX Runtime, where it does not run them all itself."""
        from tsmerge_export import backends

        return backends.get(backends.DEFAULT).load(bundle, threads, providers, plugin)

    @abstractmethod
    def limits(self, where: str) -> str:
        """What verdicts and times of a bundle are worth, and what was not run: a sentence of the card.

        Args:
            where: they were taken, in words.
        """

    def describe(self, target: Mapping[str, Any]) -> Sequence[Block]:
        """What a bundle holds for it, for people.

        Args:
            target: what :meth:`build` returned.
        """
        return ()
