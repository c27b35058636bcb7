"""Parity of step-by-step generation: encoder, cross and decoder in a row, with the caches that a forecaster keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from torch import nn

from tsmerge_export.build import Built
from tsmerge_export.config import MergeConfig
from tsmerge_export.families.base import Family
from tsmerge_export.pipelines.decoder import CachedDecoder
from tsmerge_export.runtimes.onnxruntime import GraphSession
from tsmerge_export.validate import corpus, tolerances
from tsmerge_export.validate.artefact import OnnxArtefact, Outputs
from tsmerge_export.validate.parity import ParityReport, judge_cases, unreadable


class _Chain:
    """The files in a row, as a :class:`~tsmerge_export.validate.artefact.Artefact`."""

    def __init__(self, files: dict[str, Path], with_decisions: Path | None, threads: int | None) -> None:
        names = [value.name for value in onnx.load(files["encoder"], load_external_data=False).graph.output]
        self._encoder = OnnxArtefact(files["encoder"], names, threads, with_decisions)
        self._names = names
        self.taps = self._encoder.taps
        self._decoder = CachedDecoder(
            GraphSession(files["cross"], threads=threads), GraphSession(files["decoder"], threads=threads)
        )

    def run(self, inputs: Outputs) -> Outputs:
        return self._follow(inputs, self._encoder.run)

    def tapped(self, inputs: Outputs) -> Outputs:
        return self._follow(inputs, self._encoder.tapped)

    def _follow(self, inputs: Outputs, encode: Callable[[Outputs], Outputs]) -> Outputs:
        tokens = inputs["tokens"]
        found = encode({name: value for name, value in inputs.items() if name != "tokens"})
        run = self._decoder.start({name: found[name] for name in self._names}, *tokens.shape[1:])
        steps = [run.step(tokens[:, :, step]).copy() for step in range(tokens.shape[2])]
        return {**found, "logits": np.stack(steps, axis=2)}


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
    """Prove the decoder: logits of teacher-forced steps against the original merged model.

    The original runs all steps at once, without caches. The files run one step after the other through the host code of
    the forecaster. Rows whose encoder flipped a merge decision are counted, not compared, as in
    :func:`~tsmerge_export.validate.parity.check`.

    Args:
        family: one whose :meth:`~tsmerge_export.families.base.Family.generation` is not None.
        built: the files of ``encoder``, ``cross`` and ``decoder``.
        cases: instead of every corpus entry at a short and a long length. The others are as for parity.

    Returns:
        The report of the component ``decoder``; it never raises for a failed comparison.
    """
    component = family.generation(model)
    assert component is not None
    tolerance = tolerances.end_to_end(family.name, "float32", atol, rtol)
    files = {item.component.name: item.merged for item in built}
    decisions = next(item.decisions for item in built if item.component.name == "encoder")
    try:
        chain = _Chain(files, decisions, threads)
    except Exception as error:  # ONNX Runtime and onnx raise types of their own
        return unreadable(component.name, files["decoder"], tolerance, error)
    todo = _cases(family.context(model), seed) if cases is None else cases
    return judge_cases(component, model, merge, chain, todo, tolerance, threads=threads, progress=progress)


def _cases(context: int, seed: int) -> list[corpus.Case]:
    sizes = ((2, 5), (1, context + context // 4 + 1))
    return [corpus.Case(entry, batch, length, seed) for entry in corpus.ENTRIES for batch, length in sizes]
