"""What a compression came to, for people: rows and sentences, the same on stdout and on the page."""

from __future__ import annotations

from itertools import groupby

from tsmerge_export.bundle.compression import ORIGINAL, QUANTISE, Compression, StepEntry
from tsmerge_export.console.figures import change

ABOUT = "Each step in turn, against the original model in float32, merged alike"


def compression_table(found: Compression) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: the original, then every step."""
    header = (
        "step", "degree", "MB", "gzip, MB", "speed-up", f"{found.metric}, validation", "at most",
        f"{found.metric}, test",
    )  # fmt: skip
    return header, [_row(step) for step in found.steps]


def _row(step: StepEntry) -> tuple[str, ...]:
    if step.left_out:
        return (step.step, "left out: beyond the budget", "", "", "", "", "", "")
    speed = "1.00"
    if step.speedup is not None and step.speedup_low is not None and step.speedup_high is not None:
        speed = f"{step.speedup:.2f} ({step.speedup_low:.2f} to {step.speedup_high:.2f})"
    errors = ("", "", "")
    if step.step != ORIGINAL:
        errors = (change(step.increase_percent), change(step.upper_percent), _tested(step))
    return (step.step, step.degree or "", _megabytes(step.bytes), _megabytes(step.gzip_bytes), speed, *errors)


def _tested(step: StepEntry) -> str:
    if step.test_low_percent is None or step.test_high_percent is None:
        return change(step.test_percent)
    return f"{change(step.test_percent)} ({step.test_low_percent:+.1f} to {step.test_high_percent:+.1f})"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.2f}"


def words(found: Compression) -> list[str]:
    """What came out, and what to know of it, in sentences."""
    done = [step for step in found.steps if step.degree is not None]
    if not done:
        return [
            f"not compressed: no step keeps the {found.metric} within {found.max_increase_percent:g} % with 90 % "
            "confidence; give a larger --max-increase, or more --windows"
        ]
    first, last = found.steps[0], done[-1]
    said = []
    if first.bytes and first.gzip_bytes and last.bytes and last.gzip_bytes:
        said.append(
            f"{first.bytes / last.bytes:.1f} times smaller as it is, {first.bytes / last.gzip_bytes:.1f} times with "
            f"gzip (the original with gzip: {first.bytes / first.gzip_bytes:.1f}); error {_tested(last)} on the "
            "test part"
        )
    if last.worst_column is not None and last.worst_percent != last.test_percent:
        said.append(f"worst column of the test part: {last.worst_column!r}, {change(last.worst_percent)}")
    if any(step.step != QUANTISE for step in done):
        said.append(
            "zeros and shared values are stored as any others: they make files smaller where these are compressed, and "
            "no call faster"
        )
    if last.test_percent is not None and last.test_percent > found.max_increase_percent:
        said.append(
            f"on the test part the error rises by more than the {found.max_increase_percent:g} % that validation "
            "promised: give more --windows or a smaller --max-increase"
        )
    if found.checkpoint_gzip_bytes and found.original_bytes:
        said.append(
            f"weights of {found.checkpoint}: {_megabytes(found.checkpoint_bytes)} MB, with gzip "
            f"{_megabytes(found.checkpoint_gzip_bytes)} (the original's: {_megabytes(found.original_bytes)}, "
            f"{_megabytes(found.original_gzip_bytes)})"
        )
    return said


def tried_words(found: Compression) -> str:
    """Every degree that was looked at, with its bound, in a sentence."""
    parts = []
    for step, group in groupby(found.tried, key=lambda one: one.step):
        degrees = ", ".join(f"{one.degree} at most {change(one.upper_percent)}" for one in group)
        parts.append(f"{step} ({degrees})")
    return f"tried on validation: {'; '.join(parts)}"
