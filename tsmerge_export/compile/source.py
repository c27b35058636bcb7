"""Where a model comes from: what a compilation asks of it, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from tsmerge_export.backends.base import Prover
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import verdicts
from tsmerge_export.bundle.manifest import GraphEntry, OriginalEntry
from tsmerge_export.bundle.precision import PrecisionCost
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.console.progress import Progress
from tsmerge_export.eager.default import Settled
from tsmerge_export.families.base import Arrays, Component
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.precision.half import Halves
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.settings.trained import Trained
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.parity_report import ParityReport


@dataclass(frozen=True)
class Cost:
    """What merging costs.

    Attributes:
        verdict: for the manifest.
        example: makes what a person looks at beside it, for the report; None where there is nothing to show.
    """

    verdict: verdicts.Cost
    example: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Original:
    """The model that a source's weights were trained from: unmerged, it is what merging them is compared with.

    Attributes:
        source: that model. entry: for the manifest.
    """

    source: Source
    entry: OriginalEntry


class Source(Protocol):
    """A model to compile, and the truth that its files are held against.

    :class:`~tsmerge_export.compile.checkpoint_source.CheckpointSource` is an eager module of a known family,
    :class:`~tsmerge_export.graphs.source.GraphSource` a graph from a file.
    """

    @property
    def name(self) -> str:
        """As the user named it."""

    @property
    def family(self) -> str:
        """Name of its family; of a graph from a file, what stands for one."""

    @property
    def opset(self) -> int:
        """ONNX operator set of its files."""

    @property
    def components(self) -> Sequence[Component]:
        """What is exported, a file each. Where something merges, it is in the first."""

    @property
    def longest(self) -> int | None:
        """Steps that it reads at most; None where that is not known."""

    @property
    def sizes(self) -> Mapping[str, int] | None:
        """Dims of its inputs that it is known to run at; None where any will do."""

    @property
    def graph(self) -> GraphEntry | None:
        """What the file of a graph did not tell about its tokens; None of any other model."""

    @property
    def trained(self) -> Trained | None:
        """What its weights were trained for; None where nobody knows of anything."""

    @property
    def original(self) -> Original | None:
        """What merging is compared with; None is the source itself, unmerged."""

    @property
    def notes(self) -> Sequence[str]:
        """What was found out about it and should be told, a line each."""

    def settle(self, merge: MergeConfig | None) -> Settled:
        """The setting, without an open end: None is what is safe for it, which may be not to merge.

        Raises:
            UsageError, UnsupportedError: it cannot merge like that; said before any slow step.
        """

    def plan(self, merge: MergeConfig) -> Mapping[int, MergeStep]:
        """The steps of a setting, by layer."""

    def plain(self, component: Component, folder: Path, progress: Progress) -> ir.Model:
        """The graph of a component without merging, proved to run at any size. It must not be changed.

        Args:
            folder: for weights that are too large for one message; they are read from there later on.

        Raises:
            UnsupportedError, VerdictError: it does not export, or not right.
        """

    def stay(self, component: Component) -> Mapping[str, int]:
        """Outputs that may stay merged, with their token axis."""

    def feed(self, series: npt.NDArray[np.float32]) -> Arrays:
        """Inputs of the first component for series ``[B, L]``; made up where nobody knows what they mean."""

    def shapes(self, shape: OneShape) -> dict[str, tuple[int, ...]]:
        """Of the first component's inputs at one batch and length.

        Raises:
            UsageError: it does not take that. UnsupportedError: it has more components than one.
        """

    def rival(self, built: Built, folder: Path) -> Path:
        """The file that the merged one is timed against: the model as its user would run it in ONNX Runtime."""

    def parity(
        self, merge: MergeConfig, built: Sequence[Built], checks: Checks, faults: Sequence[str], told: Told
    ) -> verdicts.Parity:
        """The files against the reference merging in the model as it was. It does not raise for a failure.

        Args:
            faults: of no component; they fail it, too.
        """

    def cost(self, merge: MergeConfig, built: Sequence[Built], checks: Checks, told: Told) -> Cost:
        """What merging costs in accuracy and brings in speed."""

    @property
    def precise(self) -> Sequence[str]:
        """Modules whose results may be beyond fp16, by a part of their path: their products stay float32 there."""

    def precision(
        self,
        twins: Sequence[Built],
        quantised: Sequence[Built],
        checks: Checks,
        told: Told,
        timed: Path | None,
    ) -> PrecisionCost:
        """What a precision below float32 costs in accuracy and brings in speed: its files against their twins.

        Whether that passes is not looked at here.

        Args:
            timed: the file that is timed for it; None: it does not run here.
        """

    def calibration(self, twins: Sequence[Built], checks: Checks) -> Calibration:
        """Series to choose a precision by, none of them those of a verdict.

        Args:
            twins: all components in float32.

        Raises:
            UsageError: there are too few.
        """

    def half(
        self,
        merge: MergeConfig,
        twins: Sequence[Built],
        low: Sequence[Built],
        kind: str,
        which: Sequence[Halves],
        checks: Checks,
        told: Told,
    ) -> ParityReport:
        """Files in half against the model cast the same way.

        Args:
            low: with products in float32 of rounded operands. which: of each component, what is in half.
        """

    def lower(
        self,
        target: Target,
        merge: MergeConfig,
        built: Sequence[Built],
        checks: Checks,
        *,
        folder: Path,
        scratch: Path,
        progress: Progress,
    ) -> TargetEntry:
        """Have a back end make files of its own of what has been proved; the manifest's account of them.

        Args:
            built: components for it. folder: where its files go. scratch: for what is not part of the result.

        Raises:
            UnsupportedError, VerdictError, UsageError: it cannot, or the result is not right.
        """

    def prover(
        self, runtime: str, merge: MergeConfig, item: Built, built: Sequence[Built], checks: Checks
    ) -> Prover:
        """The parity verdict of one component; ``built`` are all of them."""

    def pipeline(self) -> dict[str, Any]:
        """What a forecaster needs besides the components, JSON-ready."""

    @property
    def record(self) -> Mapping[str, Any] | None:
        """How its weights were distilled, as ``distillation.json`` beside them says it; None where nothing does."""

    def versions(self) -> dict[str, str]:
        """Of the packages that its files come from."""

    def run(self) -> Run:
        """By which options of the command line it is had again, for the commands of a report; the others are usual."""
