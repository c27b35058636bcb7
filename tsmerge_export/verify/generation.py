"""Parity of a family of several components: all of them in a row, as a forecaster runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx
from torch import nn

from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.compile.build import Built
from tsmerge_export.families.base import Component, Family, Generation
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, tolerances
from tsmerge_export.verify.artefact import OnnxArtefact, Outputs
from tsmerge_export.verify.parity import ParityReport, judge_cases, unreadable


class _Chain:
    """The files in a row, as a :class:`~tsmerge_export.verify.artefact.Artefact`."""

    def __init__(
        self, generation: Generation, built: Sequence[Built], first: Component, threads: int | None
    ) -> None:
        items = {item.component.name: item for item in built}
        head = items.pop(first.name)
        self._names = [value.name for value in onnx.load(head.merged, load_external_data=False).graph.output]
        self._inputs = [spec.name for spec in first.inputs]
        self._first = OnnxArtefact(head.merged, self._names, threads, head.decisions)
        self.taps = self._first.taps
        self._follow = generation.follow(
            {name: GraphSession(item.merged, threads=threads) for name, item in items.items()}
        )

    def run(self, inputs: Outputs) -> Outputs:
        return self._in_a_row(inputs, self._first.run)

    def tapped(self, inputs: Outputs) -> Outputs:
        return self._in_a_row(inputs, self._first.tapped)

    def _in_a_row(self, inputs: Outputs, run: Callable[[Outputs], Outputs]) -> Outputs:
        found = run({name: inputs[name] for name in self._inputs})
        return found | self._follow(inputs, {name: found[name] for name in self._names})


def check(
    family: Family,
    model: nn.Module,
    merge: MergeConfig,
    built: Sequence[Built],
    *,
    atol: float | None = None,
    rtol: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    cases: Sequence[corpus.Case] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ParityReport:
    """Prove the components behind the first: teacher-forced steps against the original merged model.

    The original runs all steps at once, without caches; the files run through the host code of the forecaster. Rows
    whose first component flipped a merge decision are counted, not compared, as in
    :func:`~tsmerge_export.verify.parity.check`.

    Args:
        family: one whose :meth:`~tsmerge_export.families.base.Family.generation` is not None.
        built: the files of all components.
        cases: instead of every corpus entry at a short and a long length. The others are as for parity.

    Returns:
        The report of the component ``decoder``; it never raises for a failed comparison.
    """
    component = family.generation(model)
    assert component is not None
    tolerance = tolerances.end_to_end(family.name, "float32", atol, rtol)
    try:
        chain = _Chain(component, built, family.components(model)[0], threads)
    except Exception as error:  # ONNX Runtime and onnx raise types of their own
        last = next(item.merged for item in built if item.component.name == component.name)
        return unreadable(component.name, last, tolerance, error)
    todo = _cases(family.context(model), seed) if cases is None else cases
    noisy = atol is None and rtol is None
    return judge_cases(
        component, model, merge, chain, todo, tolerance, threads=threads, noisy=noisy, progress=progress
    )


def _cases(context: int, seed: int) -> list[corpus.Case]:
    sizes = ((2, 5), (1, context + context // 4 + 1))
    return [corpus.Case(entry, batch, length, seed) for entry in corpus.ENTRIES for batch, length in sizes]
