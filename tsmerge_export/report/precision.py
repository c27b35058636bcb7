"""The third verdict for people: rows and sentences that the terminal, the card and the page share."""

from __future__ import annotations

from tsmerge_export.bundle.precision import (
    CalibrationEntry,
    CastParity,
    PrecisionChange,
    PrecisionCost,
    PrecisionEntry,
    Sensitivity,
)
from tsmerge_export.console import figures, terminal
from tsmerge_export.console.figures import change
from tsmerge_export.report.text import METRICS, column_name, number
from tsmerge_export.settings.precision import HALVES

PRECISION_HEADER = ("", "float32", "below it", "change", "90 % interval")
SENSITIVITY_HEADER = ("product", "weights", "moves forecasts alone by", "kept at")
_DASH = "-"
_NEXT = 5  # products that are not kept


def _interval(found: PrecisionChange) -> str:
    if found.low_percent is None or found.high_percent is None:
        return _DASH
    return f"{change(found.low_percent)} to {change(found.high_percent)}"


def precision_title(cost: PrecisionCost) -> str:
    """On what it was measured."""
    if cost.columns is None:
        return cost.data
    return (
        f"{cost.data}: {cost.columns} columns x {cost.windows or 0} windows, context {cost.context}, "
        f"horizon {cost.horizon}"
    )


def precision_words(cost: PrecisionCost) -> str:
    """Whether it passed, and what that means."""
    if not cost.passed:
        return "FAILED"
    limit = "" if cost.max_increase is None else f", at most {cost.max_increase:g} % allowed"
    if cost.cast is not None:
        limit = f"; {_cast_words(cost.cast)}{limit}"
    return f"passed ({cost.weights} weights are those of the float32 file, rounded as they should be{limit})"


def _cast_words(cast: CastParity) -> str:
    """How files in half compare with the model cast the same way."""
    words = f"{cast.rows} series in {cast.cases} cases as the eager model cast the same way computes them"
    if cast.max_rel is not None:
        words += f", within {cast.max_rel:.1e} of the outputs' scale"
    if cast.decision_flips:
        words += f", {cast.decision_flips} decision flips"
    return words + (f", {cast.noisy_rows} within its own noise" if cast.noisy_rows else "")


def precision_rows(cost: PrecisionCost) -> list[tuple[str, str, str, str, str]]:
    """Lines of the verdict, under :data:`PRECISION_HEADER`."""
    rows = []
    for key, text in METRICS.items():
        found = cost.changes.get(key)
        if found is None:
            continue
        shown = (number(found.float32), number(found.quantised), change(found.median_percent))
        rows.append((text, *shown, _interval(found)))
        if found.worst_column is not None and (cost.columns or 0) > 1:
            worst = (_DASH, _DASH, change(found.worst_percent), "")
            rows.append((f"  of the worst column, {column_name(found.worst_column)}", *worst))
    for name, moved in cost.outputs.items():
        text = f"{name}: root mean square of the difference, of its own"
        rows.append((text, _DASH, number(moved), _DASH, ""))
    for layer, moved in enumerate(cost.decisions_moved_percent):
        if moved is not None:
            text = f"tokens merged away behind merge {layer + 1} that are still there"
            rows.append((text, _DASH, f"{moved:.2g} %", _DASH, ""))
    speed = cost.speed
    if speed is not None:
        place = f"batch {speed.batch}, length {speed.length}, threads {speed.threads or 'default'}"
        times = (f"{speed.float32_ms:.2f} ms", f"{speed.quantised_ms:.2f} ms", figures.speed(speed.ratio))
        rows.append((f"time per call ({place})", *times, ""))
    return rows


def precision_summary(entry: PrecisionEntry) -> str:
    """What was done to the files, in a sentence or two."""
    parts = entry.components.values()
    before, after = (sum(part.float32_bytes for part in parts), sum(part.bytes for part in parts))
    kept = sorted({name for part in parts for name in part.kept})
    count, stored = sum(part.quantised for part in parts), sum(part.stored for part in parts)
    tables = sum(part.tables for part in parts)
    and_tables = f" and {tables} table{'s' * (tables > 1)}" if tables else ""
    done = (
        f"{count} products in half"
        if entry.kind in HALVES
        else f"{count - tables} products{and_tables} quantised by {entry.quantiser}"
    )
    if stored:
        done += f" ({stored} of them by their weights alone: the results may be beyond fp16)"
    text = (
        f"{entry.kind}: {done}, {before / 1e6:.2f} MB -> {after / 1e6:.2f} MB ({after / before:.2f} times)."
    )
    text += " Merge decisions, sizes, normalisation and softmax are float32."
    raised = [name for part in parts for name in part.raised]
    if raised and entry.sensitivity is not None:
        text += f" {len(raised)} of them in {entry.sensitivity.kept_at}."
    if kept:
        text += f" Also float32: {', '.join(kept)}."
    if entry.calibration is not None:
        text += f" {calibration_words(entry.calibration)}"
    return text if entry.sensitivity is None else f"{text} {sensitivity_words(entry.sensitivity)}"


def calibration_words(found: CalibrationEntry) -> str:
    """On what scales of activations were found, in a sentence."""
    windows = "" if found.windows is None else f", {found.columns} columns x {found.windows} windows"
    return (
        f"Scales of activations are fixed, found on {found.data}{windows}: {found.percentile:g} % of the values lie "
        "within them, the others are clipped."
    )


def sensitivity_words(found: Sensitivity) -> str:
    """How what is kept was found, in a sentence or two."""
    windows = "" if found.windows is None else f", {found.columns} columns x {found.windows} windows"
    what = "outputs move by" if found.windows is None else "the weighted quantile loss may rise by"
    before, after = (
        "an unknown amount" if value is None else change(value)
        for value in (found.before_percent, found.after_percent)
    )
    text = f"Chosen on {found.data}{windows}, {found.budget_percent:g} % allowed: with all products quantised {what}"
    kept = sum(one.kept for one in found.products)
    if not kept:
        return f"{text} {before}, and all are."
    return f"{text} {before}, with {kept} of {len(found.products)} kept at {found.kept_at} by {after}."


def sensitivity_rows(found: Sensitivity) -> list[tuple[str, str, str, str]]:
    """What hurts most, under :data:`SENSITIVITY_HEADER`: all that is kept, and what comes next."""
    kept = sum(one.kept for one in found.products)
    return [
        (
            one.module or one.node,
            str(one.weights),
            number(one.moved),
            found.kept_at if one.kept else "",
        )
        for one in found.products[: kept + _NEXT]
    ]


def print_precision(cost: PrecisionCost | None, entry: PrecisionEntry | None = None) -> None:
    """Print the third verdict as a table on stdout, and how what is kept was found; nothing where there is none."""
    if cost is None:
        return
    console = terminal.console()
    console.print(f"Precision cost on {precision_title(cost)}: {precision_words(cost)}", soft_wrap=True)
    terminal.print_table(PRECISION_HEADER, precision_rows(cost))
    if entry is not None and entry.calibration is not None:
        console.print(calibration_words(entry.calibration), soft_wrap=True)
    if entry is not None and entry.sensitivity is not None:
        console.print(sensitivity_words(entry.sensitivity), soft_wrap=True)
    for failure in cost.failures[:5]:
        console.print(f"failure: {failure}", soft_wrap=True)
    for note in cost.notes:
        console.print(f"note: {note}", soft_wrap=True)
