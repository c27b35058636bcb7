"""An eager module of a known family as the source of a compilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from torch import nn

from tsmerge_export import families
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle.manifest import OriginalEntry
from tsmerge_export.bundle.precision import PrecisionCost
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.bundle.verdicts import Parity
from tsmerge_export.checkpoint import IN_MEMORY, LoadedModel, load_model
from tsmerge_export.checkpoint.weights import digest
from tsmerge_export.compile.build import stay_merged
from tsmerge_export.compile.hand_over import EagerProver, build_for
from tsmerge_export.compile.onnx_export import DEFAULT_OPSET, EXAMPLE, export_component, prove_dynamic
from tsmerge_export.compile.original import check_original
from tsmerge_export.compile.source import Cost, Original
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.demo import SAMPLE_SERIES
from tsmerge_export.eager.apply import plan_of, refuse_where_nothing_merges, remove
from tsmerge_export.eager.default import Settled, settle
from tsmerge_export.eager.trained import fitting
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families import plugins
from tsmerge_export.families.base import Arrays, Component
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.half import Halves, rounded_weights
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import FLAG, OneShape
from tsmerge_export.settings.trained import Trained
from tsmerge_export.verify import cost, example, generation, half, parity, precision, remarks
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration, WindowCalibration
from tsmerge_export.verify.cast import Cast
from tsmerge_export.verify.checks import Checks, Told
from tsmerge_export.verify.data import Table, need_rows, read_table
from tsmerge_export.verify.decoded import decoded_by, forecasts_by
from tsmerge_export.verify.parity_report import ParityReport
from tsmerge_export.version import versions


class CheckpointSource:
    """A model of a family, see :class:`~tsmerge_export.compile.source.Source`.

    Args:
        loaded: the model, with no merging applied.
        opset: 18 to 23.
        data: series for the merge cost; None is the bundled sample.
        given: the options of the command line that it was loaded by.
        original: what merging is compared with, unmerged; None is the model itself.

    Raises:
        UsageError: ``data`` are too short for the model, or ``original`` does not forecast alike.
    """

    notes: Sequence[str] = ()
    sizes: None = None
    graph: None = None

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        opset: int = DEFAULT_OPSET,
        data: Table | None = None,
        given: Mapping[str, Any] | None = None,
        original: CheckpointSource | None = None,
    ) -> None:
        self.loaded, self.opset = loaded, opset
        self.model, self.of_family = loaded.model, families.get(loaded.family)
        self.name, self.family = loaded.source, loaded.family
        self.components: Sequence[Component] = self.of_family.components(self.model)
        self._data, self._given = data, dict(given or {})
        if data is not None:
            need_rows(data.name, len(data.values), self.horizon, self.horizon)
        self._rival, self.original = original, None
        if original is not None:
            check_original(self, original)
            self.original = Original(original, OriginalEntry(original.name, digest(original.model)))

    @classmethod
    def load(
        cls,
        model: str | Path | nn.Module,
        *,
        family: str | None = None,
        config: str | Path | None = None,
        trust_remote_code: bool = False,
        opset: int | None = None,
        data: str | Path | Table | None = None,
        original: str | Path | nn.Module | None = None,
        progress: Progress | None = None,
    ) -> CheckpointSource:
        """Read what the user gave.

        Args:
            model: folder, hub id, ``.pt`` file, or an eager module. family, config, trust_remote_code: see
                :func:`~tsmerge_export.checkpoint.load_model`. opset: None is 18.
            data: a file or a table; None is the bundled sample. progress: told about the step.
            original: what merging is compared with, unmerged: as ``model``, with a config of its own; None is the model
                itself.

        Raises:
            UsageError, UnsupportedError: something of it is wrong.
        """
        path = None if data is None or isinstance(data, Table) else data
        table = read_table(path) if path is not None else data
        assert table is None or isinstance(table, Table)
        (progress or NoProgress()).step("load")
        loaded = _loaded(model, family, config, trust_remote_code)
        rival = None
        if original is not None:
            rival = cls(_loaded(original, None, None, trust_remote_code))
        given = {
            "family": family,
            "config": None if config is None else str(config),
            "trust_remote_code": trust_remote_code,
        }
        return cls(
            loaded, opset=DEFAULT_OPSET if opset is None else opset, data=table, given=given, original=rival
        )

    @property
    def horizon(self) -> int:
        """Steps that it forecasts."""
        return self.of_family.horizon(self.model)

    @property
    def longest(self) -> int:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.of_family.context(self.model)

    @cached_property
    def trained(self) -> Trained | None:
        """What its weights were trained for."""
        return fitting(self.of_family, self.model)

    @cached_property
    def table(self) -> Table:
        """Series for the merge cost."""
        if self._data is not None:
            return self._data
        table = read_table(SAMPLE_SERIES)
        return table if len(table.values) >= 2 * self.horizon else _longer_sample(3 * self.horizon)

    def settle(self, merge: MergeConfig | None) -> Settled:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        if merge is not None:
            refuse_where_nothing_merges(self.of_family, self.model, merge)
        settled = settle(merge, self.of_family, self.model)
        points = self.of_family.merge_points(self.model).count
        settled.merge.check_turns(len(settled.merge.select_layers(points)))
        return settled

    def plan(self, merge: MergeConfig) -> Mapping[int, MergeStep]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return plan_of(self.of_family, self.model, merge)

    def plain(self, component: Component, folder: Path, progress: Progress) -> ir.Model:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        progress.step("export")
        plain = export_component(component, self.model, opset=self.opset, folder=folder)
        prove_dynamic(component, self.model, plain)
        return plain

    def stay(self, component: Component) -> Mapping[str, int]:
        """Those with a dynamic dim that no input has."""
        return stay_merged(component)

    def feed(self, series: npt.NDArray[np.float32]) -> Arrays:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.components[0].from_series(self.model, series)

    def shapes(self, shape: OneShape) -> dict[str, tuple[int, ...]]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        if len(self.components) > 1:
            others = " and ".join(part.name for part in self.components[1:])
            raise UnsupportedError(
                f"{FLAG} {shape}: a {self.family} has more graphs than one, and lengths of the {others} grow while it "
                "forecasts; leave it out"
            )
        named = {dim for spec in self.components[0].inputs for dim in spec.dims if isinstance(dim, str)}
        more = sorted(named - {"batch", "length"})
        if more:
            raise UnsupportedError(
                f"{FLAG} {shape}: lengths in a {self.family} follow from {' and '.join(more)} too, which it does not "
                "name; leave it out"
            )
        varies = "length" in named
        if shape.length > self.longest or (shape.length < self.longest and not varies):
            takes = "reads at most" if varies else "always takes"
            raise UsageError(
                f"{FLAG} {shape}: {self.name} {takes} {self.longest} steps, not {shape.length}; "
                f"give {FLAG} {replace(shape, length=self.longest)}"
            )
        series = np.random.default_rng(0).standard_normal((shape.batch, shape.length), np.float32)
        return {name: tuple(value.shape) for name, value in self.feed(series).items()}

    def rival(self, built: Built, folder: Path) -> Path:
        """The plain export, of the original where there is one."""
        return built.rival

    def parity(
        self, merge: MergeConfig, built: Sequence[Built], checks: Checks, faults: Sequence[str], told: Told
    ) -> Parity:
        """The first component by itself, and those behind it in a row with it, against the eager model."""
        first = built[0]
        reports = [
            parity.check(
                self.of_family, first.component, self.model, merge, first.merged, checks, avoid=EXAMPLE,
                with_decisions=first.decisions, plan=self.plan(merge), progress=told,
            )
        ]  # fmt: skip
        if len(built) > 1:
            reports.append(generation.check(self.of_family, self.model, merge, built, checks, progress=told))
        return parity.combine(reports, faults).verdict()

    def cost(self, merge: MergeConfig, built: Sequence[Built], checks: Checks, told: Told) -> Cost:
        """Forecasts of rolling windows. They start at the first component; the others are the same in both, unless the
        unmerged model is another."""
        first, theirs = built[0], self._rival
        unmerged = [replace(item, merged=item.rival) for item in built]
        rival = None if theirs is None else cost.Rival(
            theirs.name, theirs.components[0], theirs.model,
            decoded_by(theirs.of_family, theirs.model, unmerged, checks),
        )  # fmt: skip
        alone = (theirs or self).trained
        measured = cost.measure(
            self.of_family, first.component, self.model, first.rival, first.merged, self.table, checks,
            with_decisions=first.decisions, progress=told, rival=rival,
            comparable=alone is None or not alone.needs_merging,
            forecast=decoded_by(self.of_family, self.model, built, checks),
        )  # fmt: skip
        verdict = measured.verdict()
        said = (
            remarks.beyond(merge, first.with_nodes, self.longest),
            remarks.large(measured),
            remarks.own_rival(alone)
            if theirs is None
            else remarks.rival_unfit(alone, "which is not this one"),
            None
            if self.original is None
            else remarks.stranger(self.trained, self.original.entry.source, self.original.entry.sha256),
        )
        notes = (*verdict.notes, *(note for note in said if note is not None))
        shown = partial(
            example.make, self.of_family, first.component, self.model, first.rival, first.merged, self.table,
            measured, checks, forecasts=forecasts_by(self.of_family, self.model, built, checks),
            rival=None if theirs is None else forecasts_by(theirs.of_family, theirs.model, unmerged, checks),
            with_decisions=first.decisions,
        )  # fmt: skip
        return Cost(replace(verdict, notes=notes), shown)

    @property
    def precise(self) -> Sequence[str]:
        """Those that transformers keeps in float32 when it loads a model in fp16: ``wo`` of T5."""
        return tuple(getattr(self.model, "_keep_in_fp32_modules", None) or ())

    def precision(
        self,
        twins: Sequence[Built],
        quantised: Sequence[Built],
        checks: Checks,
        told: Told,
        timed: Path | None,
    ) -> PrecisionCost:
        """Forecasts of rolling windows, by all components of either side."""
        return precision.measure(
            self.of_family, self.model, twins, quantised, self.table, checks, timed=timed, progress=told
        )

    def calibration(self, twins: Sequence[Built], checks: Checks) -> Calibration:
        """Windows before the last fifth of the series."""
        return WindowCalibration(self.of_family, self.model, twins, self.table, checks)

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
        """Against the eager module, with the weights and products rounded that are in the files."""
        weights = [
            weight
            for twin, own in zip(twins, which, strict=True)
            for weight in rounded_weights(as_products(onnx_weights.read(twin.merged)), own)
        ]
        cast = Cast(kind, weights, attention=any(own.attention for own in which))
        return half.check(self.of_family, self.model, merge, twins, low, kind, cast, checks, told)

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
        """See :func:`~tsmerge_export.compile.hand_over.build_for`."""

        def prover(item: Built) -> EagerProver:
            return self.prover(target.runtime, merge, item, built, checks)

        return build_for(
            target,
            merge,
            built,
            prover,
            self.longest,
            self.shapes,
            folder=folder,
            scratch=scratch,
            progress=progress,
        )

    def prover(
        self, runtime: str, merge: MergeConfig, item: Built, built: Sequence[Built], checks: Checks
    ) -> EagerProver:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return EagerProver(runtime, self.loaded, merge, item, built, checks)

    def pipeline(self) -> dict[str, Any]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.of_family.pipeline(self.model)

    @property
    def record(self) -> Mapping[str, Any] | None:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return self.loaded.distillation

    def versions(self) -> dict[str, str]:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        return versions() | plugins.distribution(self.family)

    def run(self) -> Run:
        """See :class:`~tsmerge_export.compile.source.Source`."""
        data = None if self._data is None else self._data.path
        return Run(data=data, table=tuple(self.table.options.words()), **self._given)


def _loaded(
    model: str | Path | nn.Module, family: str | None, config: str | Path | None, trust_remote_code: bool
) -> LoadedModel:
    """What the user gave. Raises UsageError, UnsupportedError: something of it is wrong."""
    if isinstance(model, str | Path):
        return load_model(model, family=family, config=config, trust_remote_code=trust_remote_code)
    return _of_module(model, family)


def _of_module(model: nn.Module, family: str | None) -> LoadedModel:
    """An eager module as if it had been loaded, what merging there is taken off."""
    found, core = families.for_model(model)
    if family is not None and family != found.name:
        raise UsageError(f"the model is a {found.name}, not a {family}")
    if any(
        tensor.is_floating_point() and str(tensor.dtype) != "torch.float32" for tensor in core.parameters()
    ):
        raise UsageError("the model is not float32; export model.float()")
    return LoadedModel(remove(core).eval(), found.name, found.config_of(core), IN_MEMORY)


def _longer_sample(rows: int) -> Table:
    """The bundled sample series, generated for more rows: the default must not be too short for a model."""
    from tsmerge_export.demo import series

    return Table(f"{SAMPLE_SERIES.name}, generated for {rows} rows", series.COLUMNS, series.make(rows))
