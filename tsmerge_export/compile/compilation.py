"""One compilation: a source and how its tokens merge; traced once, merged as often as asked, proved, bundled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from tsmerge_export import backends
from tsmerge_export.backends.onnxruntime.static.check import faults as static_faults
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle, BundleWriter
from tsmerge_export.bundle.manifest import Described, to_dict
from tsmerge_export.bundle.precision import PrecisionCost, PrecisionEntry
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.verdicts import Verdicts
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.half import halve_files, judge_half
from tsmerge_export.compile.hand_over import entry_of_one_shape
from tsmerge_export.compile.precision import judge, quantise_files
from tsmerge_export.compile.shared_weights import share
from tsmerge_export.compile.source import Source
from tsmerge_export.console.progress import NoProgress, Progress, Stopwatch
from tsmerge_export.eager.default import Settled
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FLOAT32, FP32, HALVES, Precision
from tsmerge_export.verify import forms
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks

#: Writes what people read of a bundle: (its folder, all that is known of it, sizes that it is known to run at).
Texts = Callable[[Path, dict[str, Any], Mapping[str, int] | None], None]


class Compilation:
    """A source, and the setting that it is merged by.

    Args:
        source: the model.
        merge: None is what is safe for it, see :mod:`~tsmerge_export.eager.default`.
        inline: write merge functions in place, for runtimes that do not expand functions.
        progress: told about each step. A stopwatch has also what came before, the loading of the source.

    A source that names its original is compared with that; without merging there is nothing to compare.

    Attributes:
        settled: the setting without an open end, and a line that says where it comes from.

    Raises:
        UsageError, UnsupportedError: the source cannot merge like that; or it has an original, and nothing merges.
    """

    def __init__(
        self,
        source: Source,
        merge: MergeConfig | None = None,
        *,
        inline: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.source, self.inline = source, inline
        self._progress = progress if isinstance(progress, Stopwatch) else Stopwatch(progress or NoProgress())
        self.settled: Settled = source.settle(merge)
        self._plain: dict[str, ir.Model] = {}
        self._original: Compilation | None = None
        if source.original is not None:
            if not self.merge.active:
                raise UsageError(
                    f"--original {source.original.source.name}: nothing is merged, so that there is nothing to compare "
                    "it with; leave it out"
                )
            self._original = Compilation(source.original.source, MergeConfig("none"), progress=self._progress)

    @property
    def merge(self) -> MergeConfig:
        """The setting."""
        return self.settled.merge

    def plain(self, component: Component, folder: Path) -> ir.Model:
        """The graph of a component without merging, traced and proved once; it must not be changed.

        Args:
            folder: for weights that are too large for one message. It is needed for as long as the compilation is.
        """
        if component.name not in self._plain:
            self._plain[component.name] = self.source.plain(component, folder, self._progress)
        return self._plain[component.name]

    def merged(
        self,
        component: Component,
        folder: Path,
        merge: MergeConfig | None = None,
        *,
        inline: bool = False,
        scratch: Path | None = None,
    ) -> Built:
        """The files of a component, which is traced where it was not yet.

        Args:
            folder: where ``<component>.onnx`` is written. merge: instead of the setting of the compilation.
            scratch: for files that are not part of the result; None is ``folder``.

        Raises:
            UnsupportedError, UsageError, VerdictError: it cannot be built.
        """
        scratch = scratch or folder
        return merge_and_lower(
            component, self.plain(component, scratch), merge or self.merge, inline=inline, folder=folder,
            scratch=scratch, progress=self._progress, stay=self.source.stay(component),
        )  # fmt: skip

    def forget(self, component: Component) -> None:
        """Let go of a component's graph, which is traced anew where it is needed again."""
        self._plain.pop(component.name, None)

    def _in_a_row(self, folder: Path, scratch: Path, *, inline: bool) -> list[Built]:
        """The files of all components; each graph is let go of before the next is traced: there may be little room."""
        built = []
        for component in self.source.components:
            built.append(self.merged(component, folder, inline=inline, scratch=scratch))
            self.forget(component)
        if self._original is None:
            return built
        beside = scratch / "original"
        beside.mkdir()
        theirs = self._original._in_a_row(beside, beside, inline=False)
        return [replace(mine, original=other.merged) for mine, other in zip(built, theirs, strict=True)]

    def prove(
        self, built: Sequence[Built], checks: Checks, *, faults: Sequence[str] = (), show: bool = False
    ) -> tuple[Verdicts, dict[str, Any]]:
        """Both verdicts, and what the report shows beside them.

        Args:
            built: files of all components. checks: how they are held against the source.
            faults: of no component; they fail parity, too. show: whether to make what only the report shows.

        Returns:
            The verdicts: with a failed parity a cost means nothing, and there is none. What is shown, JSON-ready.
        """
        self._progress.step("parity")
        parity = self.source.parity(self.merge, built, checks, faults, self._progress.update)
        if not (self.merge.active and parity.passed):
            return Verdicts(parity), {}
        self._progress.step("cost")
        cost = self.source.cost(self.merge, built, checks, self._progress.update)
        verdicts = Verdicts(parity, cost.verdict)
        if not show or cost.example is None:
            return verdicts, {}
        self._progress.step("example")
        return verdicts, {"example": cost.example()}

    def validate(self, bundle: Bundle, checks: Checks) -> Verdicts:
        """The verdicts of a bundle that is there, against the source; in its runtime too, where that runs its files.

        Of a quantised bundle, parity and merge cost are those of the float32 files that are built anew; the bundle's
        own are held against these. Of a bundle of one shape they are those of files for any, and its own is held
        against the source at its shape.

        Raises:
            UsageError: its forms for other runtimes cannot be read. MissingDependencyError: that runtime is not here.
        """
        shape = bundle.contents.one_shape
        checks = replace(checks, shape=shape)
        inlined = bundle.contents.inline and self.merge.active
        if inlined:
            checks = replace(checks, place=checks.place.without_library("an inlined bundle"))
        with TemporaryDirectory(prefix="tsmerge-") as name:
            folder = Path(name)
            # Built anew: the unmerged rival, and a form that shows its decisions where the bundle's is inlined.
            fresh = self._in_a_row(folder, folder, inline=False)
            theirs = [
                replace(
                    one, merged=bundle.component(one.component.name).file,
                    decisions=one.merged if inlined else None,
                )
                for one in fresh
            ]  # fmt: skip
            faults = forms.faults(bundle, self.source.plan(self.merge))
            faults += self._faults_there(bundle, theirs, checks, folder)
            said = bundle.contents.precision
            anew = said is not None or shape is not None
            verdicts = self.prove(fresh if anew else theirs, checks, faults=faults)[0]
            if said is None or not verdicts.passed:
                return verdicts
            return replace(verdicts, precision=self._judged(fresh, theirs, said, checks, folder, again=True))

    def _judged(
        self,
        twins: Sequence[Built],
        low: Sequence[Built],
        entry: PrecisionEntry,
        checks: Checks,
        scratch: Path,
        *,
        again: bool = False,
    ) -> PrecisionCost:
        self._progress.step("precision")
        told = self._progress.update
        if entry.kind in HALVES:
            return judge_half(self.source, self.merge, twins, low, entry, checks, told, scratch)
        plan = self.source.plan(self.merge)
        return judge(self.source, twins, low, entry, checks, told, plan, scratch if again else None)

    def _faults_there(
        self, bundle: Bundle, built: Sequence[Built], checks: Checks, folder: Path
    ) -> list[str]:
        """What fails where a bundle's own runtime runs its files; none where it has files of its own, see ``forms``."""
        entry = bundle.contents.target
        if entry is not None and entry.static is not None:
            item = replace(built[0], decisions=None)
            prover = self.source.prover(entry.runtime, self.merge, item, built, checks)
            try:
                prover.at(item.merged, entry.static)
            except VerdictError as error:
                return [str(error)]
            name = item.merged.name
            return [f"{name}: {fault}" for fault in static_faults(onnx_weights.read(item.merged))[:1]]
        if entry is None or not backends.get(entry.runtime).proves_alone:
            return []
        target = Target(entry.runtime, entry.dtype)
        target.backend.check(target, self.merge)
        files = {name: bundle.file(part.onnx) for name, part in entry.components.items()}
        wanted = [
            replace(item, merged=files[item.component.name]) for item in built if item.component.name in files
        ]
        try:
            self.source.lower(
                target, self.merge, wanted, checks, folder=folder, scratch=folder, progress=self._progress
            )
        except (VerdictError, UnsupportedError) as error:
            return [str(error)]
        return []

    def bundle(
        self,
        output: str | Path | Callable[[str], str | Path],
        checks: Checks,
        *,
        texts: Texts | None = None,
        force: bool = False,
        target: Target | None = None,
        search: Mapping[str, Any] | None = None,
        compression: Mapping[str, Any] | None = None,
        precision: Precision = FLOAT32,
        notes: Sequence[str] = (),
    ) -> Bundle:
        """Merge, prove, lower and write a bundle, all of it or nothing.

        Args:
            output: folder to make, or a function that names it after the method. force: replace a bundle that is there.
            texts: writes what people read. target: a back end beside ONNX Runtime. search, compression: what came
                before.
            precision: below float32, the files that are proved are quantised, and those are what the bundle holds.
            notes: what a user should know beside where the setting comes from.

        Raises:
            VerdictError: parity or the precision failed; nothing is written, ``error.manifest`` holds the verdicts.
            UsageError, UnsupportedError, MissingDependencyError: the user can mend it; nothing is written.
        """
        output = output(self.merge.method) if callable(output) else output
        shape = None if target is None else target.static
        if shape is not None:
            self.source.shapes(shape)  # what it does not take is said before any slow step
            checks = replace(checks, shape=shape)
        with BundleWriter(output, force) as writer:
            proved = writer.scratch if precision.low else writer.path
            built = self._in_a_row(proved, writer.scratch, inline=self.inline)
            low, entry = built, None
            if precision.low:
                self._progress.step("quantise")
                low, entry = (
                    halve_files(self.source, built, precision, writer.path)
                    if precision.half
                    else quantise_files(
                        built, precision, writer.path, partial(self.source.calibration, built, checks),
                        scratch=writer.scratch, told=self._progress.update,
                    )
                )  # fmt: skip
            share([item.merged for item in low], writer.path)
            verdicts, shown = self.prove(built, checks, show=True)
            if entry is not None and verdicts.passed:
                cost = self._judged(built, low, entry, checks, writer.scratch)
                verdicts = replace(verdicts, precision=cost)
            described = self._described(built, verdicts, checks, entry, notes)
            shown["run"] = self._run(output, checks, target, precision).to_dict()
            before = {"search": search, "compression": compression}
            shown |= {name: dict(content) for name, content in before.items() if content is not None}
            if self.source.record is not None:
                shown["distillation"] = dict(self.source.record)
            known = to_dict(described) | shown
            if not verdicts.passed:
                first = "nothing was compared" if verdicts.parity is None else verdicts.parity.first_failure
                raise VerdictError(f"{self.source.name}: parity failed, no bundle is written: {first}", known)
            if verdicts.precision is not None and not verdicts.precision.passed:
                first = verdicts.precision.first_failure
                raise VerdictError(
                    f"{self.source.name}: precision failed, no bundle is written: {first}", known
                )
            if target is not None and target.needs_more:
                whole = target.backend.whole or shape is not None
                wanted = [item for item in built if whole or item.component.mergeable]
                lowered = self.source.lower(
                    target, self.merge, wanted, checks, folder=writer.path, scratch=writer.scratch,
                    progress=self._progress,
                )  # fmt: skip
                described = replace(described, target=lowered)
                if shape is not None:
                    parts = zip(described.components, built, strict=True)
                    fixed = tuple(entry_of_one_shape(entry, item.merged) for entry, item in parts)
                    described = replace(described, components=fixed)
            self._progress.step("bundle")
            self._progress.stop()
            if texts is not None:
                known = to_dict(described) | shown | {"seconds": self._progress.seconds}
                texts(writer.path, known, self.source.sizes)
            return writer.commit(described)

    def _described(
        self,
        built: Sequence[Built],
        verdicts: Verdicts,
        checks: Checks,
        precision: PrecisionEntry | None,
        notes: Sequence[str],
    ) -> Described:
        """All that is known without a target."""
        trained = self.source.trained
        return Described(
            source=self.source.name,
            family=self.source.family,
            merge=self.merge.to_dict(),
            notes=(*(() if self.settled.note is None else (self.settled.note,)), *notes),
            opset=self.source.opset,
            inline=self.inline,
            components=tuple(item.entry() for item in built),
            graph=self.source.graph,
            pipeline=self.source.pipeline(),
            trained=None if trained is None else trained.written(),
            original=None if self.source.original is None else self.source.original.entry,
            verdicts=verdicts,
            versions=self.source.versions() | checks.place.versions(),
            providers=tuple(checks.place.names),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            precision=precision,
        )

    def _run(self, output: str | Path, checks: Checks, target: Target | None, precision: Precision) -> Run:
        """What the commands of a report need besides the manifest."""
        flags = precision.flags()
        if not flags and self.source.trained is not None and self.source.trained.precision != FP32:
            flags = ["--precision", FP32]  # without it, it would be that of the weights
        return replace(
            self.source.run(),
            output=Path(output).name,
            atol=checks.atol,
            rtol=checks.rtol,
            threads=checks.threads,
            seed=checks.seed,
            target=() if target is None else tuple(target.flags()),
            precision=tuple(flags),
            **checks.place.run_entry(),
        )
