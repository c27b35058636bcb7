"""The best settings of a search, with weights that are trained for them: they enter the last comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsmerge_export.console.progress import Progress, below
from tsmerge_export.errors import TsmergeError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill.distill import distill
from tsmerge_export.tools.distill.settings import Recipe
from tsmerge_export.tools.tune.contender import Contender
from tsmerge_export.tools.tune.crossover import WORTH
from tsmerge_export.tools.tune.search import Search, Tried, pareto
from tsmerge_export.verify.change import LEAST_WINDOWS
from tsmerge_export.verify.data import Table

#: So many settings are trained for at most.
MOST = 2
#: Training is expected to take an error that is at most so many times the budget back to it; beyond that it is a try.
_REACH = 10


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that came of the search. ``merge``: what for; ``of``: the model that it was distilled from."""

    path: Path
    of: str
    merge: MergeConfig


def names_of(output: str) -> tuple[Path, ...]:
    """The folders of the checkpoints, beside the bundle."""
    return tuple(Path(f"{output}-distilled-{number + 1}") for number in range(MOST))


def worth_it(tried: Sequence[Tried], most: float) -> list[Tried]:
    """The settings to train for: the fastest of the front, and the fastest whose error is within reach of the budget.

    Args:
        most: the budget of the search, per cent.
    """
    front = [one for one in pareto(tried) if one.merge.active and one.speedup >= WORTH]
    near = [one for one in front if one.upper <= _REACH * max(most, 1.0)]
    return list(dict.fromkeys([*front[:1], *near[:1]]))[:MOST]


def distill_best(
    search: Search,
    table: Table,
    most: float,
    seconds: float,
    *,
    names: Sequence[Path],
    prepared: Callable[[Path], Contender],
    options: Mapping[str, Any],
    force: bool,
    seed: int,
    threads: int | None,
    progress: Progress,
) -> tuple[list[Checkpoint], list[Tried], list[str]]:
    """Train for the best settings of a search, and measure what came of it as the search measures.

    Training sees the first 60 % of the rows, the search's validation lies behind them, the test part behind that. Which
    weights are kept validation chooses, so that the figures there are a little hopeful; those of the test are not.

    Args:
        search: done. table: all rows. most: the budget, per cent. seconds: for all of them together.
        names: of the checkpoints. prepared: makes a contender of one of them. options: of loading the original models.
        force: replace checkpoints that are there.

    Returns:
        The checkpoints, their figures, and notes on what could not be trained.
    """
    chosen = worth_it(search.tried, most)
    made: list[Checkpoint] = []
    found: list[Tried] = []
    notes = [] if chosen else ["nothing was distilled: no setting that was tried is faster"]
    by_name = {contender.name: contender for contender in search.contenders}
    for number, (one, name) in enumerate(zip(chosen, names, strict=False)):
        context = int(by_name[one.source].validation.context.shape[-1])
        recipe = Recipe(
            budget=seconds / len(chosen), max_increase=most / 100, context=context, windows=LEAST_WINDOWS, seed=seed,
            threads=threads,
        )  # fmt: skip
        try:
            distilled = distill(
                one.source, one.merge, data=table, recipe=recipe,
                progress=_Part(progress, number, len(chosen)), **options,
            )  # fmt: skip
        except TsmergeError as error:
            notes.append(f"{one.merge.brief()} could not be distilled: {error}")
            continue
        distilled.save(name, force)
        made.append(Checkpoint(name, one.source, one.merge))
        found += search.add(prepared(name))
    below(progress, "")
    return made, found, notes


class _Part:
    """The progress of one training within that of all."""

    def __init__(self, whole: Progress, number: int, parts: int) -> None:
        self._whole, self._number, self._parts = whole, number, parts

    def step(self, name: str) -> None:
        """Steps of a training are not steps of the search."""

    def update(self, done: int, total: int) -> None:
        """A share of this part."""
        self._whole.update(self._number * total + min(done, total), self._parts * total)

    def below(self, content: Any) -> None:
        """Passed on."""
        below(self._whole, content)
