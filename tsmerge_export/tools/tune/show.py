"""The table and the picture of ``tsmerge tune``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tsmerge_export.bundle.search import setting_words
from tsmerge_export.console.figures import change
from tsmerge_export.console.terminal import console, print_table, table
from tsmerge_export.tools.tune.crossover import interval
from tsmerge_export.tools.tune.search import Tried, pareto
from tsmerge_export.tools.tune.verdict import Answer, Final


def name_of(one: Tried, several: bool) -> str:
    """A setting in words, with the model in front where there is more than one."""
    words = setting_words(one.merge, one.precision, one.meant)
    return f"{Path(one.source).name}: {words}" if several else words


def front_table(tried: Sequence[Tried], metric: str, *, most: float, windows: str = "") -> Table:
    """The Pareto front so far, fastest first; within budget is what stays below it with 90 % confidence.

    ``windows``: on how many the bound rests, in words.
    """
    several = len({one.source for one in tried}) > 1
    made = table(
        ("setting", f"{metric}, validation", "at most", "speed-up", "in budget"),
        f"Pareto front of {len(tried)} settings" + (f", on {windows}" if windows else ""),
    )
    for one in pareto(tried):
        mark = "yes" if one.upper <= most else ""
        made.add_row(
            name_of(one, several), change(one.increase), change(one.upper), f"{one.speedup:.2f}", mark
        )
    return made


def print_answer(
    answer: Answer, tried: Sequence[Tried], metric: str, *, most: float, windows: str = ""
) -> None:
    """The front, the finalists on the test split, and what to do, on stdout."""
    console().print(front_table(tried, metric, most=most, windows=windows))
    several = len({one.source for one in tried}) > 1
    rows = [
        (
            name_of(final.tried, several),
            change(final.tried.increase),
            change(final.test.median),
            interval(final.speed) if final.speed.runs else "1.00",
            "" if final.over_eager is None else f"{final.over_eager:.2f}",
            _role(final, answer),
        )
        for final in answer.finals
    ]
    print_table(
        ("setting", f"{metric}, validation", f"{metric}, test", "speed-up", "over eager", "role"), rows,
        "Finalists, on the test split that the search did not see", (0, 5),
    )  # fmt: skip
    failed = [(name_of(one, several), one.error or "") for one in tried if one.error is not None]
    if failed:
        print_table(("setting", "reason"), failed, f"{len(failed)} settings failed", (0, 1))
    for reason in answer.reasons:
        print(reason)
    if answer.pays_from is not None:
        pays = answer.pays_from
        probed = Tried(pays.source, pays.merge, 0, 0, 0, precision=pays.precision)
        print(f"{name_of(probed, several)} is {pays.words()}")
    best = answer.best
    if best is not answer.fastest:
        words = name_of(best.tried, several)
        test = change(best.test.median)
        print(f"best quality: {words}, {test} on the test split, speed-up {best.speed.value:.2f}")


def _role(final: Final, answer: Answer) -> str:
    roles = []
    if final is answer.reference:
        roles.append("reference")
    if final is answer.fastest:
        roles.append("fastest within budget")
    if final is answer.best:
        roles.append("best quality")
    return ", ".join(roles)


def plot(tried: Sequence[Tried], answer: Answer, metric: str, most: float, path: Path) -> None:
    """Speed-up against change of error: everything that was tried, the front, and the choice."""
    from matplotlib.figure import Figure

    good = [one for one in tried if one.error is None]
    front = pareto(tried)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    for source in dict.fromkeys(one.source for one in good):
        mine = [one for one in good if one.source == source]
        axes.scatter(
            [o.speedup for o in mine], [o.upper for o in mine], s=18, alpha=0.6, label=Path(source).name
        )
    axes.step([o.speedup for o in front], [o.upper for o in front], where="post", color="k", lw=1)
    axes.axhline(most, color="tab:red", lw=1, ls="--", label=f"budget {most:g} %")
    axes.axvline(1.0, color="0.6", lw=1)
    if answer.fastest is not None:
        chosen = answer.fastest.tried
        axes.scatter([chosen.speedup], [chosen.upper], s=140, facecolors="none", edgecolors="tab:red")
    axes.set_xlabel("speed-up over the unmerged reference")
    axes.set_ylabel(f"change of {metric} on validation, 90 % bound (%)")
    axes.set_yscale("symlog", linthresh=10)
    axes.legend(fontsize=8)
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=130)
