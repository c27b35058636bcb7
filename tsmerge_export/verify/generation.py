"""Parity of a family of several components: all of them in a row, as a forecaster runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
from torch import nn

from tsmerge_export.backends.components import StepSession
from tsmerge_export.families.base import Component, Family, Generation
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.verify import corpus, ratios
from tsmerge_export.verify.artefact import OnnxArtefact, Outputs
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import USUAL, Checks
from tsmerge_export.verify.eager import eager_reference
from tsmerge_export.verify.parity import ParityReport, judge_cases, unreadable


class Chain:
    """The files in a row, as a :class:`~tsmerge_export.verify.artefact.Artefact`."""

    def __init__(
        self,
        generation: Generation,
        built: Sequence[Built],
        first: Component,
        checks: Checks,
        sessions: Mapping[str, StepSession] | None,
    ) -> None:
        items = {item.component.name: item for item in built}
        head = items.pop(first.name)
        self._names = [value.name for value in onnx.load(head.merged, load_external_data=False).graph.output]
        self._inputs = [*(spec.name for spec in first.inputs), INPUT]
        values_from = None if sessions is None else sessions[first.name].run
        self._first = OnnxArtefact(head.merged, self._names, checks, head.decisions, values_from)
        self.taps = self._first.taps
        self._follow = generation.follow(
            {name: checks.forecaster(item.merged) for name, item in items.items()}
            if sessions is None
            else sessions
        )

    def run(self, inputs: Outputs) -> Outputs:
        return self._in_a_row(inputs, self._first.run)

    def tapped(self, inputs: Outputs) -> Outputs:
        return self._in_a_row(inputs, self._first.tapped)

    def _in_a_row(self, inputs: Outputs, run: Callable[[Outputs], Outputs]) -> Outputs:
        found = run({name: inputs[name] for name in self._inputs if name in inputs})
        return found | self._follow(inputs, {name: found[name] for name in self._names})


def check(
    family: Family,
    model: nn.Module,
    merge: MergeConfig,
    built: Sequence[Built],
    checks: Checks = USUAL,
    *,
    sessions: Mapping[str, StepSession] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ParityReport:
    """Prove the components behind the first: teacher-forced steps against the original merged model.

    The original runs all steps at once, without caches; the files run through the host code of the forecaster. Rows
    whose first component flipped a merge decision are counted, not compared, as in
    :func:`~tsmerge_export.verify.parity.check`.

    Args:
        family: one whose :meth:`~tsmerge_export.families.base.Family.generation` is not None.
        built: the files of all components.
        sessions: all components in another runtime, by name, instead of the files in ONNX Runtime.
        checks: its cases are instead of every corpus entry at a short and a long length. The others are as for parity.

    Returns:
        The report of the component ``decoder``; it never raises for a failed comparison.
    """
    component = family.generation(model)
    assert component is not None
    tolerance = checks.tolerance(family.name)
    try:
        chain = Chain(component, built, family.components(model)[0], checks, sessions)
    except Exception as error:  # ONNX Runtime and onnx raise types of their own
        last = next(item.merged for item in built if item.component.name == component.name)
        return unreadable(component.name, last, tolerance, error)
    report = ParityReport(component.name, tolerance)
    todo = ratios.spread(cases(family.context(model), checks), merge)
    with eager_reference(component, model, merge, threads=checks.threads, noisy=checks.noisy()) as reference:
        judge_cases(report, reference, chain, todo, progress)
    return report


def cases(context: int, checks: Checks) -> Sequence[corpus.Case]:
    if checks.cases is not None:
        return checks.cases
    sizes = ((2, 5), (1, context + context // 4 + 1))
    entries = corpus.ENTRIES[:1] if checks.quick else corpus.ENTRIES
    return [corpus.Case(entry, batch, length, checks.seed) for entry in entries for batch, length in sizes]
