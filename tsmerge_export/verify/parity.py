"""Parity: the original eager model *with* merging against the exported artefact in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import nn

from tsmerge_export.errors import MissingDependencyError
from tsmerge_export.families.base import Component, Family
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, decisions, lengths, noise, ratios, settings, tolerances
from tsmerge_export.verify.artefact import Artefact, OnnxArtefact, Outputs
from tsmerge_export.verify.checks import USUAL, Checks
from tsmerge_export.verify.decisions import Verdict
from tsmerge_export.verify.eager import Expected, eager_reference, run_eager
from tsmerge_export.verify.parity_report import CaseResult, ParityReport, combine
from tsmerge_export.verify.tolerances import Tolerance

__all__ = ["CaseResult", "ParityReport", "check", "combine", "compare_row", "judge_cases", "run_eager"]

# Absolute errors are only comparable between rows of ordinary magnitude; larger ones count in max_rel alone.
_ORDINARY_SCALE = 1e3


class CaseName(Protocol):
    """What the comparison of a case needs of it: :class:`~tsmerge_export.verify.corpus.Case` has it."""

    @property
    def name(self) -> str: ...

    @property
    def degenerate(self) -> bool: ...

    @property
    def batch(self) -> int: ...


C = TypeVar("C", bound=CaseName)


def check(
    family: Family,
    component: Component,
    model: nn.Module,
    merge: MergeConfig,
    artefact: Path,
    checks: Checks = USUAL,
    *,
    dtype: str = "float32",
    avoid: tuple[int, int] | None = None,
    with_decisions: Path | None = None,
    values_from: Callable[..., Outputs] | None = None,
    plan: Mapping[int, MergeStep] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ParityReport:
    """Prove an exported component against the original module with merging applied.

    Per row of every case, in this order: the decisions of all merge layers must be equal, except where the first
    difference lies within float noise (a *flip*: counted, values not compared); NaN and infinities must be at the
    same places; integers must be equal; floats must satisfy
    ``|got - want| <= atol * max |want of the row| + rtol * |want|``.

    A file whose ratio is chosen at run time runs with its default on every series, and on some of them with other
    ratios (:mod:`.ratios`), each against the module with that ratio as its setting.

    The values come from the file as it is; decisions from a copy that also outputs them. (More outputs change how
    a runtime reuses buffers, so that copy alone could hide a fault.)

    Args:
        family, component, model: the original, unpatched module, float32 on the CPU.
        merge: the settings that the artefact was made with.
        artefact: .onnx file.
        checks: tolerance, series and threads.
        dtype: of the artefact's weights, for the tolerance.
        avoid: (batch, length) that the export used.
        with_decisions: for an artefact whose functions are inlined, the same model with its merge nodes.
        values_from: instead of ONNX Runtime on the artefact, inputs -> outputs by name (an engine made from it).
        plan: steps by layer. The attributes of the file's merge nodes are compared with it, and to the whole corpus
            lengths are added at which settings beside it would merge otherwise, see :mod:`.lengths`.
        progress: called with (cases done, cases in all).

    Returns:
        The report; it never raises for a failed comparison.
    """
    tolerance = checks.tolerance(family.name, dtype)
    todo = ratios.spread(checks.corpus(family.context(model), avoid), merge)
    try:
        opened = OnnxArtefact(
            artefact, [spec.name for spec in component.outputs], checks, with_decisions, values_from
        )
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        return unreadable(component.name, artefact, tolerance, error)
    report, noisy = ParityReport(component.name, tolerance), checks.noisy(dtype)
    with eager_reference(component, model, merge, threads=checks.threads, noisy=noisy) as reference:
        judge_cases(report, reference, opened, todo, progress)
        if plan and with_decisions is None:
            report.faults += settings.faults(artefact, plan)
        if plan and checks.whole:
            more = _telling_cases(plan, todo, report.cases, family.context(model), checks.seed)
            judge_cases(report, reference, opened, more)
    return report


def _telling_cases(
    plan: Mapping[int, MergeStep],
    done: Sequence[corpus.Case],
    results: Sequence[CaseResult],
    context: int,
    seed: int,
) -> list[corpus.Case]:
    """Series at lengths that tell a plan from settings beside it, as those that were run do not."""
    seen = {
        case.length: result.tokens
        for case, result in zip(done, results, strict=True)
        if result.tokens and case.length <= context and case.ratio is None
    }
    if not seen:
        return []
    first = {length: counts[0] for length, counts in seen.items()}
    wanted = [
        lengths.steps_for(tokens, first)
        for tokens in lengths.more_tokens(plan, [*seen.values()], max(first.values()))
    ]
    entry = next(entry for entry in corpus.ENTRIES if not entry.degenerate)
    return [
        corpus.Case(entry, 2, length, seed)
        for length in sorted({length for length in wanted if length is not None and length <= context})
    ]


def unreadable(name: str, artefact: Path, tolerance: Tolerance, error: Exception) -> ParityReport:
    """The report of a file that cannot be opened. Raises MissingDependencyError: that says nothing about the file."""
    if isinstance(error, MissingDependencyError):
        raise error
    failed = CaseResult(artefact.name, False, 0, failures=[f"the file cannot be loaded: {_one_line(error)}"])
    return ParityReport(name, tolerance, [failed])


def judge_cases(
    report: ParityReport,
    reference: Callable[[C], Expected],
    artefact: Artefact,
    todo: Sequence[C],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """The comparison of :func:`check`, case by case, of an artefact that is open; the results go into the report.

    Noise is measured no more where the report has failed already.
    """
    for done, case in enumerate(todo):
        expected = reference(case)
        measured = None if any(result.failures for result in report.cases) else expected.noise
        report.cases.append(compare_case(case, expected, artefact, report.tolerance, measured, report.of))
        if progress is not None:
            progress(done + 1, len(todo))


def compare_case(
    case: CaseName,
    expected: Expected,
    artefact: Artefact,
    tolerance: Tolerance,
    measured: Callable[[], noise.Noise] | None = None,
    of: str = "float32",
) -> CaseResult:
    """Run an artefact on one case and compare it with the reference's outputs and decisions, see :func:`check`.

    ``measured`` gives the noise of the case in the type ``of``, where rows may be within it.
    """
    taps, decided = artefact.taps, expected.decided
    try:
        got = artefact.run(expected.inputs)
        seen = artefact.tapped(expected.inputs) if taps else got
    except Exception as error:  # a runtime raises its own types; ONNX Runtime one per status code
        result = CaseResult(case.name, case.degenerate, case.batch)
        result.failures.append(f"the run failed: {_one_line(error)}")
        return result
    made = [(seen[t.kept], seen[t.target]) for t in taps]
    rows = decisions.rows(decided, case.batch)
    verdict = decisions.compare(decided, made, taps, tolerances.SCORE_NOISE, rows)
    tied = decisions.near_tie(decided, tolerances.SCORE_NOISE, rows)
    counts = decisions.count_tie(decided, tolerances.SCORE_NOISE, rows)
    verdict, tied = (decisions.fold_rows(value, case.batch) for value in (verdict, tied))
    result = judge(
        case, expected.outputs, got, seen, verdict, tied, tolerance, count_tied=counts, measured=measured,
        of=of,
    )  # fmt: skip
    result.tokens = [int(each.target.shape[1]) for each in decided]
    return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def judge(
    case: CaseName,
    want: Outputs,
    got: Outputs,
    tapped: Outputs,
    verdict: npt.NDArray[np.int64],
    tied: npt.NDArray[np.bool_],
    tolerance: Tolerance,
    *,
    count_tied: bool = False,
    measured: Callable[[], noise.Noise] | None = None,
    of: str = "float32",
) -> CaseResult:
    """Compare one case.

    Args:
        want, got: outputs by name, batch first. tapped: the artefact's, from the run that also output decisions.
        verdict: ``[B]`` of :class:`Verdict`. tied: ``[B]``, rows with a near tie.
        tolerance: see :func:`check`.
        count_tied: the number of tokens itself hangs on a near tie, so that shapes may differ where the batch flipped.
        measured: gives the model's noise in the type ``of``, for rows beyond the tolerance.
    """
    result = CaseResult(case.name, case.degenerate, case.batch)
    result.mismatches = int((verdict == Verdict.MISMATCH).sum())
    for row in np.flatnonzero(verdict == Verdict.MISMATCH):
        result.failures.append(f"row {row}: merge decision differs beyond float noise")
    flipped = verdict == Verdict.FLIP
    noisy: set[int] = set()
    for name, expected in want.items():
        if expected.shape != got[name].shape:
            if count_tied and _flipped_together(expected, got[name], tapped[name], verdict, tied, tolerance):
                flipped |= verdict != Verdict.MISMATCH
                continue
            result.failures.append(f"{name}: shape {list(got[name].shape)}, expected {list(expected.shape)}")
            continue
        for row in np.flatnonzero(verdict == Verdict.EQUAL):
            fault, error, scale = compare_row(expected[row], got[name][row], tolerance)
            if fault and tied[row] and not compare_row(expected[row], tapped[name][row], tolerance)[0]:
                flipped[row] = True  # the near tie went the other way in the run without extra outputs
                continue
            own = measured()[name][row] if fault and error and measured is not None else 0.0
            if own and within(expected[row], got[name][row], tolerance, noise.FACTOR * own):
                noisy.add(int(row))
                result.times_noise = max(result.times_noise, float(error / own))
                if noise.FACTOR * own >= tolerances.LIMIT * scale:
                    result.drowned[name] = result.drowned.get(name, 0) + 1
                    continue
            elif fault:
                result.failures.append(f"row {row}: {name}: {fault}" + beyond(error, own, of))
            if result.worst_row < 0 or error / scale > result.max_rel:
                result.worst_row, result.max_rel = int(row), max(result.max_rel, error / scale)
            if scale <= _ORDINARY_SCALE:
                result.max_abs = max(result.max_abs, error)
    result.flips, result.noisy = int(flipped.sum()), len(noisy)
    return result


def beyond(error: float, own: float, of: str = "float32") -> str:
    """What is said behind an error that a noise of ``own`` does not explain; nothing where there is none."""
    return f", {error / own:.1f} times the model's own {of} noise" if own else ""


def _flipped_together(
    want: npt.NDArray[Any],
    got: npt.NDArray[Any],
    tapped: npt.NDArray[Any],
    verdict: npt.NDArray[np.int64],
    tied: npt.NDArray[np.bool_],
    tolerance: Tolerance,
) -> bool:
    """Whether an output of another shape follows from one flip of a whole batch: it has another number of tokens.

    That is so where all rows flipped; or where all hang on a near tie, which went the other way only in the run without
    extra outputs: the run with them then has the expected shape and values. Nothing but one axis, not the batch, may
    differ.
    """
    differing = [axis for axis, (w, g) in enumerate(zip(want.shape, got.shape, strict=False)) if w != g]
    if want.ndim != got.ndim or len(differing) != 1 or differing[0] == 0:
        return False
    if (verdict == Verdict.FLIP).all():
        return True
    return bool(
        tied.all()
        and want.shape == tapped.shape
        and not any(
            compare_row(want[row], tapped[row], tolerance)[0]
            for row in np.flatnonzero(verdict == Verdict.EQUAL)
        )
    )


def compare_row(
    want: npt.NDArray[Any], got: npt.NDArray[Any], tolerance: Tolerance
) -> tuple[str | None, float, float]:
    """Compare one row of an output with the expected one, same shape.

    Returns:
        What is wrong (None: nothing), the largest absolute error among finite values, and the row's scale (the
        largest finite magnitude expected; 1 where that is 0).
    """
    if want.dtype.kind in "iub":
        equal = np.array_equal(want, got)
        return (None if equal else f"{int((want != got).sum())} integers differ"), 0.0, 1.0
    w, g = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(w)
    if not np.array_equal(w[~finite], g[~finite], equal_nan=True) or not np.isfinite(g[finite]).all():
        return (
            f"NaN or infinity at other places ({int(np.isnan(w).sum())} expected, {int(np.isnan(g).sum())} found)",
            0.0,
            1.0,
        )
    if not finite.any():
        return None, 0.0, 1.0
    scale = float(np.abs(w[finite]).max()) or 1.0
    error = np.abs(g[finite] - w[finite])
    worst = float(error.max())
    if (error <= tolerance.atol * scale + tolerance.rtol * np.abs(w[finite])).all():
        return None, worst, scale
    return f"error {worst:.2e} at scale {scale:.2e} (relative {worst / scale:.2e})", worst, scale


def within(want: npt.NDArray[Any], got: npt.NDArray[Any], tolerance: Tolerance, noise: float) -> bool:
    """Whether every finite value of a row is within the tolerance or the noise, whichever is more.

    Of rows that :func:`compare_row` finds fault with for an error alone: their other values are known to be right.
    """
    w, g = want.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(w)
    scale = float(np.abs(w[finite]).max()) or 1.0
    allowed = np.maximum(tolerance.atol * scale + tolerance.rtol * np.abs(w[finite]), noise)
    return bool((np.abs(g[finite] - w[finite]) <= allowed).all())
