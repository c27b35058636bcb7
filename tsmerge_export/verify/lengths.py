"""Lengths at which a plan differs from those that lie beside it: where a file of another setting shows.

At any one length two settings may remove the same tokens: a quarter and a fifth of seven are one. The lengths of the
corpus say nothing about that, the plan does: every attribute that says how many tokens go, or which take part, is moved
by one either way, and for each of these neighbours a length is looked for where the merge would be another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tsmerge_export import ops
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.methods.method import Attributes

#: At most so many lengths beside those of the corpus.
MOST = 8
# Numbers of tokens that are looked at: all up to here, and as many again up to the longest.
_EVERY = 128

#: Tokens before each merge, in the order of the plan.
Counts = Sequence[int]


@dataclass(frozen=True)
class Neighbour:
    """The attributes of one merge, ``place`` in the order of the plan, with one of them moved by one."""

    place: int
    attribute: str
    value: int


def neighbours(plan: Mapping[int, MergeStep]) -> dict[Neighbour, Attributes]:
    """Every setting beside a plan's that an operator allows, and all its attributes.

    Steps whose number of tokens comes from the data have none: no length tells them apart.
    """
    found: dict[Neighbour, Attributes] = {}
    for place, layer in enumerate(sorted(plan)):
        step = plan[layer]
        schema = ops.schema(step.op_type)
        if schema.data_dependent:
            continue
        moves = (attribute.name for attribute in schema.attributes if attribute.counts)
        for name in (name for name in moves if name in step.attributes):
            for value in (int(step.attributes[name]) - 1, int(step.attributes[name]) + 1):
                moved = {**step.attributes, name: value}
                try:
                    schema.check(moved)
                except UsageError:
                    continue
                found[Neighbour(place, name, value)] = moved
    return found


def alike(plan: Mapping[int, MergeStep], seen: Iterable[Counts]) -> dict[Neighbour, Attributes]:
    """Neighbours that none of the numbers of tokens tells from the plan.

    Args:
        seen: for each run, how many tokens each merge had.
    """
    steps, runs = [plan[layer] for layer in sorted(plan)], [counts for counts in seen if counts]
    return {
        one: moved
        for one, moved in neighbours(plan).items()
        if not any(_apart(steps[one.place], moved, counts[one.place]) for counts in runs)
    }


def _apart(step: MergeStep, moved: Attributes, tokens: int) -> bool:
    return step.method.mark(step.attributes, tokens) != step.method.mark(moved, tokens)


def chain(plan: Mapping[int, MergeStep], tokens: int) -> list[int]:
    """Tokens before each merge, for so many before the first, where nothing is unmerged between."""
    counts = []
    for layer in sorted(plan):
        counts.append(tokens)
        step = plan[layer]
        tokens -= step.method.removed(step.attributes, tokens)
    return counts


def more_tokens(plan: Mapping[int, MergeStep], seen: Sequence[Counts], most: int) -> list[int]:
    """Numbers of tokens before the first merge that tell from the plan what those seen do not, fewest first.

    Args:
        seen: see :func:`alike`. most: no more tokens than this.

    Returns:
        At most :data:`MOST`, by greedy choice; none where the merges depend on the data, or where nothing is left that
        could be told apart.
    """
    left = alike(plan, seen)
    if not left:
        return []
    steps = [plan[layer] for layer in sorted(plan)]
    wide = range(_EVERY + 1, most + 1, max(1, (most - _EVERY) // _EVERY) if most > _EVERY else 1)
    told = {}
    for tokens in [*range(1, min(most, _EVERY) + 1), *wide]:
        counts = chain(plan, tokens)
        told[tokens] = {
            one for one, moved in left.items() if _apart(steps[one.place], moved, counts[one.place])
        }
    chosen: list[int] = []
    while len(chosen) < MOST:
        best = max(told, key=lambda tokens: (len(told[tokens]), -tokens))
        news = told[best]
        if not news:
            break
        chosen.append(best)
        told = {tokens: rest - news for tokens, rest in told.items()}
    return sorted(chosen)


def steps_for(tokens: int, seen: Mapping[int, int]) -> int | None:
    """A length of series that gives so many tokens, judged by those that were run.

    Args:
        seen: tokens before the first merge by length of series, for lengths that the model reads as a whole.

    Returns:
        The length ``L`` of ``tokens = ceil(L / p) + c``, with the p and c that most of the numbers have; None where
        the number of tokens is fixed, or no length is positive.
    """
    if len(set(seen.values())) < 2:
        return None
    best, steps, special = (0, False, 0), 1, 0
    for p in range(1, max(seen) + 1):
        fitting: dict[int, list[int]] = {}
        for length, count in seen.items():
            fitting.setdefault(count + -length // p, []).append(count)
        # Short series may be padded to one number of tokens: that counts once. A context is whole tokens mostly.
        for offset, counts in fitting.items():
            fits = (len(set(counts)), max(seen) % p == 0, len(counts))
            if fits > best:
                best, steps, special = fits, p, offset
    length = (tokens - special) * steps
    return length if length > 0 else None
