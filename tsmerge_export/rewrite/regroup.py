"""Where tokens and batch go in a Reshape: axes are products of factors, which a reshape groups in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsmerge_export.rewrite.dims import Dim
from tsmerge_export.rewrite.stages import Rows, Stage

TOKENS = "it folds the token axis into another"
BATCH = "it changes the batch axis"


class CannotRegroup(Exception):
    """Tokens or batch are no longer told from other entries; the message says how."""


@dataclass(frozen=True)
class _Factor:
    """A part of the product that an axis is. ``stage`` for tokens, ``batch`` for rows; ``axis`` it came from."""

    dim: Dim
    axis: int
    stage: Stage | None = None
    batch: bool = False

    @property
    def plain(self) -> bool:
        return self.stage is None and not self.batch


def regroup(
    before: Sequence[Dim], after: Sequence[Dim], tags: Mapping[int, Stage], rows: Rows
) -> tuple[dict[int, Stage], Rows, dict[int, int]]:
    """Follow tokens and batch.

    Args:
        before, after: dims around the reshape, as without merging. tags, rows: what is merged before it.

    Returns:
        The merged axes and the rows behind it, and for each merged axis the one it was.

    Raises:
        CannotRegroup: they are split, or folded with something else.
    """
    batch = next(iter(tags.values())).batch
    factors = _factors(before, tags, rows, batch)
    groups = _groups(factors, list(before), list(after))
    found: dict[int, Stage] = {}
    moved: dict[int, int] = {}
    out: Rows | None = None
    for new, group in enumerate(groups):
        kinds = ["t" if f.stage is not None else "b" if f.batch else "." for f in group]
        for factor in group:
            if factor.stage is not None:
                found[new], moved[new] = factor.stage, factor.axis
        if kinds in (["t"], ["."], []) or not {"t", "b"} & set(kinds):
            continue
        if "t" in kinds and kinds not in (["t", "b"], ["b", "t"]):
            raise CannotRegroup(TOKENS)
        if "t" in kinds:
            out = Rows(new, 1, kinds[0] == "t")
            continue
        each = 1
        for factor in group[1:]:
            if not isinstance(factor.dim, int):
                raise CannotRegroup(BATCH)
            each *= factor.dim
        if kinds[0] != "b":
            raise CannotRegroup(BATCH)
        out = Rows(new, each)
    if len(found) != len(tags):
        raise CannotRegroup(TOKENS)
    if out is None:
        if batch != 1:
            raise CannotRegroup(BATCH)
        # A batch of one: any axis of length 1 may count as its axis.
        ones = [axis for axis, dim in enumerate(after) if dim == 1 and axis not in found]
        out = Rows(ones[0] if ones else None)
    return found, out, moved


def _factors(before: Sequence[Dim], tags: Mapping[int, Stage], rows: Rows, batch: Dim) -> list[_Factor]:
    out: list[_Factor] = []
    for axis, dim in enumerate(before):
        own = [_Factor(tags[axis].root.dim, axis, tags[axis])] if axis in tags else []
        if axis == rows.axis:
            # A batch of one is left out: it has no entries to keep apart.
            row = [] if batch == 1 else [_Factor(batch, axis, batch=True)]
            own = own + row if rows.tokens_first else row + own
            own += [_Factor(rows.each, axis)] if rows.each != 1 else []
        elif not own and dim != 1:
            own = [_Factor(dim, axis)]
        out += own
    return out


def _groups(factors: list[_Factor], before: list[Dim], after: list[Dim]) -> list[list[_Factor]]:
    """The factors of each new axis: taken from either end as long as sizes are known, one axis gets what is left.

    Several axes may share what is left where neither tokens nor batch are in it: how is then all the same.
    """
    whole = [[f for f in factors if f.axis == axis] for axis in range(len(before))]
    groups: list[list[_Factor]] = [[] for _ in after]
    left, right = 0, len(after) - 1
    while left <= right and (taken := _take(factors, after[left], before, whole, 1)) is not None:
        groups[left], factors = taken
        left += 1
    while right >= left and (taken := _take(factors, after[right], before, whole, -1)) is not None:
        groups[right], factors = taken
        right -= 1
    if left < right and not all(f.plain for f in factors):
        raise CannotRegroup(TOKENS)
    if left > right and any(not f.plain or f.dim != 1 for f in factors):
        raise CannotRegroup(TOKENS)
    if left == right:
        groups[left] = factors
    return groups


def _take(
    factors: list[_Factor], dim: Dim, before: list[Dim], whole: list[list[_Factor]], step: int
) -> tuple[list[_Factor], list[_Factor]] | None:
    """The factors at one end (``step`` 1: the left) whose product is ``dim``, and the rest; None: not known."""
    if dim == 1:
        return [], factors
    if not factors or dim is None:
        return None
    end = factors[::step][0]
    own = whole[end.axis]
    if dim == before[end.axis] and own == (factors[: len(own)] if step == 1 else factors[-len(own) :]):
        return own, factors[len(own) :] if step == 1 else factors[: -len(own)]
    if isinstance(dim, str):
        return ([end], factors[1:] if step == 1 else factors[:-1]) if end.dim == dim else None
    need, taken, rest = dim, [], factors[::step]
    while need > 1:
        if not rest or not isinstance(rest[0].dim, int):
            return None
        first = rest[0]
        size = rest[0].dim
        if need % size == 0:
            taken.append(first)
            rest, need = rest[1:], need // size
        elif first.plain and size % need == 0:
            taken.append(_Factor(need, first.axis))
            rest, need = [_Factor(size // need, first.axis), *rest[1:]], 1
        else:
            return None
    return taken[::step], rest[::step]
