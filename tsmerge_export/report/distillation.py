"""What a distillation came to, for people: rows and sentences, the same on stdout and on pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tsmerge_export.bundle.distillation import Distillation, Moved, Scored, Timed
from tsmerge_export.console.figures import change
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32

METRICS = {"mse": "MSE", "wql": "WQL"}
CONTROL = "unmerged, trained without merging (control)"
#: What all changes are against.
AGAINST = "change against the original model unmerged (test part, median over columns, 90 % interval)"


def setting_words(merge: MergeConfig) -> str:
    """A setting without what is usual."""
    return merge.brief() if merge.active else "unmerged"


def score_table(
    found: Distillation, speeds: Sequence[Timed] = ()
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows: a row for each table and setting, the unmerged ones and the control among them."""
    header = (
        "data",
        "setting",
        *(f"{name} {side}" for name in METRICS.values() for side in ("before", "after")),
    )
    timed = {_key(one.merge): interval(one) for one in speeds}
    rows: list[tuple[str, ...]] = []
    for index, score in enumerate(found.scores):
        cells = [
            cell
            for metric in METRICS
            for cell in (_percent(score.before, metric), _span(score.after, metric))
        ]
        speed = "1.00" if not score.setting.active else timed.get(_key(score.merge), "-")
        rows.append((score.data, setting_words(score.setting), *cells, *([speed] if speeds else ())))
        after = found.scores[index + 1 :]
        if score.control is not None and all(later.data != score.data for later in after):
            control = [cell for metric in METRICS for cell in ("", _span(score.control, metric))]
            rows.append((score.data, CONTROL, *control, *([""] if speeds else ())))
    return (*header, *(("speed-up",) if speeds else ())), rows


def interval(speed: Timed) -> str:
    """``1.67 (1.61 to 1.72)``."""
    return f"{speed.value:.2f} ({speed.low:.2f} to {speed.high:.2f})"


def speed_words(speeds: Sequence[Timed], precision: str = FP32) -> str:
    """What the speed-ups are of. ``precision``: of the merged files."""
    merged = "merged" if precision == FP32 else f"merged, in {precision},"
    one = speeds[0]
    threads = "" if one.threads is None else f", {one.threads} thread{'s' * (one.threads != 1)}"
    size = f"batch {one.batch}, {one.length} steps{threads}"
    return f"speed-up: {merged} against unmerged ONNX Runtime, {size}, timed in turns"


def goal(found: Distillation) -> str:
    """Whether the goal is met, in a sentence; where not, what missed it by most."""
    most = 100 * found.recipe.max_increase
    if not found.scores:
        return "no goal was looked at: there was nothing to test on"
    if found.met:
        return f"goal met: merged, MSE and WQL are at most {most:g} % above the original unmerged model's"
    score, metric = max(_merged(found), key=lambda one: _number(one[0].after.get(one[1])))
    said = change(score.after[metric].percent) if metric in score.after else "-"
    return (
        f"goal not met: {METRICS[metric]} of {score.data} with {setting_words(score.setting)} is {said} (asked for: at "
        f"most +{most:g} %); the best weights that were found are kept. More --budget or --data, or a smaller --ratio, "
        "may do it"
    )


def course_words(found: Distillation) -> str:
    """The training in a sentence."""
    history, kind = found.history, found.recipe.precision
    return (
        f"{history.steps} steps of {history.batch} windows in {history.seconds:.0f} s; kept: the weights of step "
        f"{history.best_step:.0f}, which validation chose"
        + (
            ""
            if kind == FP32
            else f"; rounded as files in {kind} are, in training and in every figure of theirs"
        )
    )


def _merged(found: Distillation) -> list[tuple[Scored, str]]:
    merged = [score for score in found.scores if score.setting.active] or list(found.scores)
    return [(score, metric) for score in merged for metric in METRICS]


def _number(moved: Moved | None) -> float:
    """What is no number is worse than any."""
    return math.inf if moved is None or moved.percent is None else moved.percent


def _percent(moved: Mapping[str, Moved], metric: str) -> str:
    return change(moved[metric].percent) if metric in moved else "-"


def _span(moved: Mapping[str, Moved], metric: str) -> str:
    if metric not in moved:
        return "-"
    one = moved[metric]
    if one.low is None or one.high is None:
        return change(one.percent)
    return f"{change(one.percent)} ({one.low:+.1f} to {one.high:+.1f})"


def _key(merge: Mapping[str, Any]) -> MergeConfig:
    return MergeConfig.from_dict(merge)
