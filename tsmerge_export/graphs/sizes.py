"""Finds by trial which sizes a graph runs at: what a file declares dynamic is often frozen inside, or tied together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays
from tsmerge_export.inspection.feeds import TOKEN_MASK, Input, Sizes, make, with_dims
from tsmerge_export.untrusted.isolated import seconds_allowed

# Lengths that are tried in turn until the graph runs: tokens, patches of images, samples of audio.
_LENGTHS = (29, 32, 96, 128, 224, 512, 1024, 4000, 16000)
_BATCHES = (2, 1)
# How far other lengths lie from the first that runs.
_OTHERS: tuple[Callable[[int], int], ...] = (
    lambda n: n + 8,
    lambda n: n // 2 | 1,
    lambda n: 2 * n,
    lambda n: n // 2,
    lambda n: 3 * n,
    lambda n: 4 * n,
)
_PROBES = 3
# Short lengths: cuts and paddings that longer ones fill, or never reach, show here. From 2 on: axes of 1 are squeezed.
_SHORT = (2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_SHORT_PROBES = 2
_SHORT_BATCH = 9  # unlike any of the lengths that are likely here
# Numbers in one input; larger ones are not tried.
MOST_NUMBERS = 2**26
_MOST_TIED = 6  # lengths; a group of n has 2^(n-1) - 1 splits to try
# The share of the time for a file that one run may take. What it takes is foretold from shorter ones.
_MOST_TIME = 1 / 5
# Product of two [tokens, tokens] matrices: what a graph that does not fit its sizes may come to before it fails.
_GROWTH = 3


@dataclass(frozen=True)
class Found:
    """Sizes that a graph runs at.

    Attributes:
        inputs: with the dims that cannot vary as numbers, and those that only vary together under one name.
        sizes: at least one, of every named dim; each named dim has another size in each of them.
        notes: what a user should know, a line each.
        short: with the shortest lengths that it runs at, and beyond its windows (see :mod:`.windows`); none where no
            length varies.
    """

    inputs: tuple[Input, ...]
    sizes: tuple[Sizes, ...]
    notes: tuple[str, ...]
    short: tuple[Sizes, ...] = ()


class Trial:
    """Runs a graph at sizes, but not where that would take too long."""

    def __init__(self, run: Callable[[Arrays], object]) -> None:
        self._run, self._most = run, _MOST_TIME * seconds_allowed()
        self._took: list[tuple[int, int, float]] = []  # length, batch, seconds

    @property
    def longest(self) -> int:
        """The greatest length of a run so far."""
        return max((length for length, _, _ in self._took), default=0)

    def fails(self, inputs: Sequence[Input], sizes: Mapping[str, int]) -> str:
        """Why the graph does not run on made-up input of these sizes, or is not tried; empty where it runs."""
        if _numbers(inputs, sizes) > MOST_NUMBERS:
            return "its inputs would be too large"
        length = max((size for dim, size in sizes.items() if dim != "batch"), default=1)
        batch = sizes.get("batch", 1)
        before = max((took for took in self._took if took[0] <= length), default=None)
        if before is not None and before[0] < length:
            foretold = before[2] * (length / before[0]) ** _GROWTH * max(1.0, batch / before[1])
            if foretold > self._most:
                return f"a run at length {length} may take {foretold:.0f} s"
        feeds = make(inputs, sizes)
        start = time.monotonic()
        reason = self.fails_on(feeds)
        self._took.append((length, batch, time.monotonic() - start))
        return reason

    def fails_on(self, feeds: Arrays) -> str:
        """Why it does not run on these inputs; empty where it does."""
        try:
            self._run(feeds)
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            return " ".join(str(error).split())[-160:] or type(error).__name__
        return ""


def find_sizes(
    run: Callable[[Arrays], object],
    inputs: Sequence[Input],
    source: str,
    given: Arrays | None = None,
    token_mask: str = TOKEN_MASK,
) -> Found:
    """Try sizes.

    Args:
        run: runs the graph; raises where it does not run.
        given: an example from the user, whose sizes come first.
        token_mask: input ``[batch, tokens]`` that is as long as another input where the graph runs so.

    Raises:
        UnsupportedError: it runs at no size that was tried.
    """
    named = list(dict.fromkeys(dim for item in inputs for dim in item.spec.dims if isinstance(dim, str)))
    trial = Trial(run)
    base, error = _base(trial, inputs, named, given)
    if base is None:
        raise UnsupportedError(
            f"{source}: ONNX Runtime runs it on no generated input (lengths {_LENGTHS[0]} to {trial.longest} tried); "
            f"give an example with --inputs FILE.npz ({error})"
        )
    for same, fixed in _attempts(trial, inputs, base, token_mask):
        names: dict[str, str | int] = {**same, **{dim: base[dim] for dim in fixed}}
        own = tuple(with_dims(item, names) for item in inputs)
        sizes = _vary(trial, own, {dim: base[dim] for dim in named if dim not in names})
        if sizes is not None:
            notes = _notes(fixed, base, given is None)
            return Found(own, tuple(sizes), tuple(notes), tuple(_short(trial, own, sizes)))
    raise AssertionError("the base itself runs")


def _attempts(
    trial: Trial, inputs: Sequence[Input], base: Sizes, token_mask: str
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """From all free to all fixed: (dims that are as long as another one, dims that are fixed)."""
    batch, lengths = [dim for dim in base if dim == "batch"], [dim for dim in base if dim != "batch"]
    yield from ((same, []) for same in _with_mask(inputs, base, token_mask))
    yield {}, []
    if len(lengths) > 1:
        tied = _tied(trial, inputs, base, lengths)
        yield tied, []
        for one in lengths:  # one of them is frozen
            yield {}, [one]
    if batch and lengths:
        yield {}, lengths
        yield {}, batch
        if len(lengths) > 1:
            yield tied, batch
    yield {}, list(base)


def _with_mask(inputs: Sequence[Input], base: Sizes, token_mask: str) -> Iterator[dict[str, str]]:
    """The token mask as long as one of the other inputs: graphs that pad or cut it run at other lengths too."""
    mask = next((item.spec.dims for item in inputs if item.spec.name == token_mask), ())
    others = [item.spec.dims for item in inputs if item.spec.name != token_mask]
    if len(mask) != 2 or not isinstance(mask[1], str) or any(mask[1] in dims for dims in others):
        return
    for dims in others:
        if len(dims) in (2, 3) and isinstance(dims[1], str) and base[dims[1]] == base[mask[1]]:
            yield {mask[1]: dims[1]}


def _tied(trial: Trial, inputs: Sequence[Input], base: Sizes, lengths: Sequence[str]) -> dict[str, str]:
    """Which lengths must be equal: groups of equal ones are split for as long as the graph runs."""
    same: dict[str, str] = {}
    for size in dict.fromkeys(base[dim] for dim in lengths):
        for group in _split(trial, inputs, base, [dim for dim in lengths if base[dim] == size]):
            same |= dict.fromkeys(group[1:], group[0])
    return same


def _split(trial: Trial, inputs: Sequence[Input], base: Sizes, group: list[str]) -> list[list[str]]:
    if len(group) > _MOST_TIED:
        return [group]
    for count in range(1, len(group)):
        for part in combinations(group[1:], count):
            for change in _OTHERS[:3]:
                sizes = {**base, **{dim: change(base[dim]) for dim in part}}
                if not trial.fails(inputs, sizes):
                    rest = [dim for dim in group if dim not in part]
                    return [*_split(trial, inputs, base, rest), *_split(trial, inputs, base, list(part))]
    return [group]


def _base(
    trial: Trial, inputs: Sequence[Input], named: list[str], given: Arrays | None
) -> tuple[dict[str, int] | None, str]:
    if given is not None:
        sizes = {
            dim: int(given[item.spec.name].shape[axis])
            for item in inputs
            for axis, dim in enumerate(item.spec.dims)
            if isinstance(dim, str)
        }
        reason = trial.fails_on(given)
        return (None if reason else sizes), reason
    first = ""
    for length in _LENGTHS if any(dim != "batch" for dim in named) else _LENGTHS[:1]:
        for batch in _BATCHES if "batch" in named else _BATCHES[:1]:
            sizes = {dim: batch if dim == "batch" else length for dim in named}
            reason = trial.fails(inputs, sizes)
            if not reason:
                return sizes, ""
            first = first or reason
    return None, first


def _numbers(inputs: Sequence[Input], sizes: Mapping[str, int]) -> int:
    """How many the largest input holds."""
    shapes = ([sizes.get(d, 1) if isinstance(d, str) else d for d in item.spec.dims] for item in inputs)
    return max((math.prod(shape) for shape in shapes), default=0)


def _vary(trial: Trial, inputs: Sequence[Input], base: Mapping[str, int]) -> list[Sizes] | None:
    """Sizes with every dim other than in the ones before; None where a dim cannot vary."""
    found: list[Sizes] = [dict(base)]
    if trial.fails(inputs, base):
        return None
    if not base:
        return found
    # Two lengths change by other rules, so that no two dims grow alike.
    lengths = [dim for dim in base if dim != "batch"]
    for turn in range(len(_OTHERS)):
        sizes = dict(base)
        for index, dim in enumerate(lengths):
            sizes[dim] = max(2, _OTHERS[(turn + index) % len(_OTHERS)](base[dim]))
        if "batch" in base:
            sizes["batch"] = (3, 5, 4, 6, 7, 8)[
                turn
            ]  # a batch of 1 proves nothing: it broadcasts to a frozen one
        used = {(dim, size) for other in found for dim, size in other.items()}
        if any((dim, size) in used for dim, size in sizes.items()) or trial.fails(inputs, sizes):
            continue
        found.append(sizes)
        if len(found) == _PROBES:
            break
    return found if len(found) > 1 else None


def _short(trial: Trial, inputs: Sequence[Input], found: Sequence[Sizes]) -> Iterator[Sizes]:
    """Sizes shorter than all in ``found``: in every length at once, or where it does not run so, in each alone."""
    least = {dim: min(sizes[dim] for sizes in found) for dim in found[0] if dim != "batch"}
    base = {dim: _SHORT_BATCH if dim == "batch" else size for dim, size in found[0].items()}

    def shorter(part: Sequence[str]) -> Iterator[Sizes]:
        for length in _SHORT:
            sizes = {**base, **dict.fromkeys(part, length)}
            if length >= min(least[dim] for dim in part) or _numbers(inputs, sizes) > MOST_NUMBERS:
                return
            if not trial.fails(inputs, sizes):
                yield sizes

    together = list(islice(shorter(tuple(least)), _SHORT_PROBES)) if least else []
    yield from together
    for dim in () if together or len(least) < 2 else least:
        yield from islice(shorter((dim,)), _SHORT_PROBES)


def _notes(fixed: list[str], base: Mapping[str, int], generated: bool) -> Iterator[str]:
    if fixed:
        what = ", ".join(f"{dim} = {base[dim]}" for dim in fixed)
        hint = "; an example of another size can be given with --inputs" if generated else ""
        yield f"the model runs at no other size of {what}, which are taken as fixed{hint}"
