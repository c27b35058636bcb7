"""Finds by trial which sizes a graph runs at: what a file declares dynamic is often frozen inside, or tied together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.feeds import TOKEN_MASK, Input, Sizes, make, with_dims

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
_MOST = 2**26
_MOST_TIED = 6  # lengths; a group of n has 2^(n-1) - 1 splits to try


@dataclass(frozen=True)
class Found:
    """Sizes that a graph runs at.

    Attributes:
        inputs: with the dims that cannot vary as numbers, and those that only vary together under one name.
        sizes: at least one, of every named dim; each named dim has another size in each of them.
        notes: what a user should know, a line each.
        short: with the shortest lengths that it runs at; none where no length varies.
    """

    inputs: tuple[Input, ...]
    sizes: tuple[Sizes, ...]
    notes: tuple[str, ...]
    short: tuple[Sizes, ...] = ()


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
    base, error = _base(run, inputs, named, given)
    if base is None:
        raise UnsupportedError(
            f"{source}: ONNX Runtime runs it on no generated input (lengths {_LENGTHS[0]} to {_LENGTHS[-1]} tried); "
            f"give an example with --inputs FILE.npz ({error})"
        )
    for same, fixed in _attempts(run, inputs, base, token_mask):
        names: dict[str, str | int] = {**same, **{dim: base[dim] for dim in fixed}}
        own = tuple(with_dims(item, names) for item in inputs)
        sizes = _vary(run, own, {dim: base[dim] for dim in named if dim not in names})
        if sizes is not None:
            notes = _notes(fixed, base, given is None)
            return Found(own, tuple(sizes), tuple(notes), tuple(_short(run, own, sizes)))
    raise AssertionError("the base itself runs")


def _attempts(
    run: Callable[[Arrays], object], inputs: Sequence[Input], base: Sizes, token_mask: str
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """From all free to all fixed: (dims that are as long as another one, dims that are fixed)."""
    batch, lengths = [dim for dim in base if dim == "batch"], [dim for dim in base if dim != "batch"]
    yield from ((same, []) for same in _with_mask(inputs, base, token_mask))
    yield {}, []
    if len(lengths) > 1:
        tied = _tied(run, inputs, base, lengths)
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


def _tied(
    run: Callable[[Arrays], object], inputs: Sequence[Input], base: Sizes, lengths: Sequence[str]
) -> dict[str, str]:
    """Which lengths must be equal: groups of equal ones are split for as long as the graph runs."""
    same: dict[str, str] = {}
    for size in dict.fromkeys(base[dim] for dim in lengths):
        for group in _split(run, inputs, base, [dim for dim in lengths if base[dim] == size]):
            same |= dict.fromkeys(group[1:], group[0])
    return same


def _split(
    run: Callable[[Arrays], object], inputs: Sequence[Input], base: Sizes, group: list[str]
) -> list[list[str]]:
    if len(group) > _MOST_TIED:
        return [group]
    for count in range(1, len(group)):
        for part in combinations(group[1:], count):
            for change in _OTHERS[:3]:
                sizes = {**base, **{dim: change(base[dim]) for dim in part}}
                if not _fails(run, make(inputs, sizes)):
                    rest = [dim for dim in group if dim not in part]
                    return [*_split(run, inputs, base, rest), *_split(run, inputs, base, list(part))]
    return [group]


def _base(
    run: Callable[[Arrays], object], inputs: Sequence[Input], named: list[str], given: Arrays | None
) -> tuple[dict[str, int] | None, str]:
    if given is not None:
        sizes = {
            dim: int(given[item.spec.name].shape[axis])
            for item in inputs
            for axis, dim in enumerate(item.spec.dims)
            if isinstance(dim, str)
        }
        reason = _fails(run, given)
        return (None if reason else sizes), reason
    first = ""
    for length in _LENGTHS if any(dim != "batch" for dim in named) else _LENGTHS[:1]:
        for batch in _BATCHES if "batch" in named else _BATCHES[:1]:
            sizes = {dim: batch if dim == "batch" else length for dim in named}
            if _numbers(inputs, sizes) > _MOST:
                continue
            reason = _fails(run, make(inputs, sizes))
            if not reason:
                return sizes, ""
            first = first or reason
    return None, first


def _numbers(inputs: Sequence[Input], sizes: Mapping[str, int]) -> int:
    """How many the largest input holds."""
    shapes = ([sizes.get(d, 1) if isinstance(d, str) else d for d in item.spec.dims] for item in inputs)
    return max((math.prod(shape) for shape in shapes), default=0)


def _fails(run: Callable[[Arrays], object], feeds: Arrays) -> str:
    """Why it does not run; empty where it does."""
    try:
        run(feeds)
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        return " ".join(str(error).split())[-160:] or type(error).__name__
    return ""


def _vary(
    run: Callable[[Arrays], object], inputs: Sequence[Input], base: Mapping[str, int]
) -> list[Sizes] | None:
    """Sizes with every dim other than in the ones before; None where a dim cannot vary."""
    found: list[Sizes] = [dict(base)]
    if _fails(run, make(inputs, base)):
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
        if _numbers(inputs, sizes) > _MOST or any((dim, size) in used for dim, size in sizes.items()):
            continue
        if _fails(run, make(inputs, sizes)):
            continue
        found.append(sizes)
        if len(found) == _PROBES:
            break
    return found if len(found) > 1 else None


def _short(
    run: Callable[[Arrays], object], inputs: Sequence[Input], found: Sequence[Sizes]
) -> Iterator[Sizes]:
    """Sizes shorter than all in ``found``: in every length at once, or where it does not run so, in each alone."""
    least = {dim: min(sizes[dim] for sizes in found) for dim in found[0] if dim != "batch"}
    base = {dim: _SHORT_BATCH if dim == "batch" else size for dim, size in found[0].items()}

    def shorter(part: Sequence[str]) -> Iterator[Sizes]:
        for length in _SHORT:
            sizes = {**base, **dict.fromkeys(part, length)}
            if length >= min(least[dim] for dim in part) or _numbers(inputs, sizes) > _MOST:
                return
            if not _fails(run, make(inputs, sizes)):
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
