"""What operators share that merge a's into b's: LocalMerge and DynamicMerge. They differ in how many merge.

Specification: :mod:`tsmerge_export.methods.matching`, which this file repeats operator by operator. Three bodies share
the bounds, the ranks, the placing of survivors and the merging of rows; they differ in how partners are found:

========  ==================  ==================================================================================
overload  neighbourhood       cost in N
========  ==================  ==================================================================================
``k1``    k = 1               linear; each a has one partner, so a merged token is a sum of two rows
``band``  1 < k <= BAND_MAX   linear: blocks of BLOCK a's against windows of BLOCK + 2k - 2 b's, by matrix product
``dense`` k = 0 or k above    quadratic: all a's against all b's; ``|i - j| < k`` is a mask
========  ==================  ==================================================================================

By another similarity than the cosine its name is added, ``causal`` in causal merging, and ``run_time`` where the share
is an input: ``k1_l2_causal_run_time``.

Facts about runtimes that shaped the bodies:

- Tokens are copied by GatherND/Gather with one index a token. Indices expanded over the features are many times slower,
  so ScatterElements with such indices touches only the r merged rows, and only where several a's share a b.
- ONNX Runtime's ScatterND runs its updates in parallel also with ``reduction="add"``: duplicate indices race. So
  sums over duplicates use ScatterElements, which is sequential, and ScatterND writes equal rows at duplicates.
- ONNX Runtime's reductions ignore a *negative* axis when the input is empty: axes are positive here.
- OpenVINO's TopK does not give the lowest index on ties: only values are taken from TopK.
- Where nothing may be removed nothing is compared (the a's are sliced to none) and no row is merged: what is left is
  one copy of x.
- Ranks count in steps of 2^-20, as the reference rounds its cosines: equal tokens tie on every runtime.
- Weights are normalised before the sum, so that sums of huge tokens do not overflow. Unmerged tokens see no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tsmerge_export.methods.matching_onnx import match_band, match_dense, match_one, score_one
from tsmerge_export.methods.options import SIMILARITIES
from tsmerge_export.ops.parts import HEAD, LIMITS, MERGE_ROWS, PLACE, REMOVED, best_of
from tsmerge_export.ops.schema import Attribute, run_time_end

#: Attributes of both.
K = Attribute(
    "k",
    "neighbourhood |i - j| < k in token pairs; 0 compares all tokens (ToMe)",
    most=1_000_000_000,
    counts=True,
    word=lambda value: f"k {value or 'global'}",
)
SIMILARITY = Attribute(
    "similarity",
    "index into SIMILARITIES: 0 cosine, 1 l2, 2 dot; all from -1 to 1, compared in whole steps of 2^-20",
    most=2,
    optional=True,
    word=lambda value: f"similarity {SIMILARITIES[value]}",
)
CAUSAL = Attribute(
    "causal",
    "1: target is the last survivor at or before a token; needs k = 1 and protect_first >= 1",
    most=1,
    optional=True,
)


def causal_is_near(attributes: Mapping[str, int | float]) -> str | None:
    """The rule that goes with them."""
    wrong = attributes.get("causal") and (attributes["k"] != 1 or attributes["protect_first"] < 1)
    return "causal needs k = 1 and protect_first >= 1" if wrong else None


#: Largest k of the banded body; above it the dense body does less work at common lengths.
BAND_MAX = 32

# The bounds of the comparison and the ranks that are no cosine (R4.1). Shapes: [1] int64 unless said otherwise.
BOUNDS = f"""{LIMITS}
  steps = Constant<value_float = 1048576.0>()
  rank_padding = Constant<value_float = 2097152.0>()
  rank_nan = Constant<value_float = -2097152.0>()
  rank_into_padding = Constant<value_float = -3145728.0>()
  rank_none = Constant<value_float = -4194304.0>()
  first_b = Add(first, i1)
"""

_SOURCE = """
  best_twice = Mul(best, i2)
  source = Add(best_twice, first)
"""

#: k = 1: b is the token after a, so the survivors before a count its place too.
TARGET_ONE = """
  target = Identity(before)
"""

#: Causal (R5.8): the last survivor at or before a token.
TARGET_BEFORE = """
  up_to = Add(before, survives)
  target = Sub(up_to, i1)
"""

#: R6.3 and R6.5: only rows that receive something are computed and written: F of them, those whose a is no padding.
ROWS_ONE = """
  into = Add(source, i1)
  place = GatherElements<axis = 1>(before, source)
  size_into = GatherElements<axis = 1>(size, into)
  size_row = Add(size_source, size_into)
  size_out = ScatterElements<axis = 1>(size_kept, place, size_row)
  received = Greater(size_source, f0)
  receiving = NonZero(received)
  slot = Transpose<perm = [1, 0]>(receiving)
  zero = Constant<value_int = 0>()
  row_batch = Gather<axis = 0>(receiving, zero)
  row_source = GatherND(source, slot)
  row_place = GatherND(place, slot)
  size_a1 = GatherND(size_source, slot)
  size_b1 = GatherND(size_into, slot)
  size_ab = Add(size_a1, size_b1)
  into_real = Greater(size_b1, f0)
  row_into = Add(row_source, i1)
  row_other = Where(into_real, row_into, row_source)
  half = Constant<value_float = 0.5>()
  share_a = Div(size_a1, size_ab)
  share_b = Div(size_b1, size_ab)
  weight_a0 = Where(into_real, share_a, half)
  weight_b0 = Where(into_real, share_b, half)
  weight_a = Unsqueeze(weight_a0, i1)
  weight_b = Unsqueeze(weight_b0, i1)
  batch_column = Unsqueeze(row_batch, i1)
  source_column = Unsqueeze(row_source, i1)
  other_column = Unsqueeze(row_other, i1)
  place_column = Unsqueeze(row_place, i1)
  index_a = Concat<axis = 1>(batch_column, source_column)
  index_b = Concat<axis = 1>(batch_column, other_column)
  index_y = Concat<axis = 1>(batch_column, place_column)
  x_a = GatherND(x, index_a)
  x_b = GatherND(x, index_b)
  x_a32 = Cast<to = 1>(x_a)
  x_b32 = Cast<to = 1>(x_b)
  part_a = Mul(x_a32, weight_a)
  part_b = Mul(x_b32, weight_b)
  mean = Add(part_a, part_b)
  row = CastLike(mean, x)
  y = ScatterND(y_kept, index_y, row)
"""

_INTO = """
  partner_best = GatherElements<axis = 1>(partner, best)
  partner_twice = Mul(partner_best, i2)
  into = Add(partner_twice, first_b)
"""


def bodies(before: str, after: str = "", *, rank: str = "rank", some: str = "some") -> Mapping[str, str]:
    """Statements of the bodies, by overload. Sizes are ``[1]`` int64.

    Args:
        before: leaves ``some``: 1 where ranks are needed, else 0; reads the bounds ``pairs`` (at most so many merge),
            ``spare_least`` (so many are above min_tokens) and ``tokens``.
        after: reads ``rank [B, P]`` (P = 0 where ``some`` is 0). Either leaves ``removed`` and ``left``.
        rank: name of the ranks of which the best merge, ``[B, P]``; P must be 0 where ``removed`` is.
        some: name of min(removed, 1).
    """
    front, choose = HEAD + BOUNDS + before, after + best_of(rank, some) + _SOURCE + PLACE
    return by_similarity(
        lambda similarity, causal: (
            front
            + match_one(score_one(similarity), causal)
            + choose
            + (TARGET_BEFORE if causal else TARGET_ONE)
            + ROWS_ONE
        ),
        lambda similarity: front + match_band(similarity) + choose + _INTO + MERGE_ROWS,
        lambda similarity: front + match_dense(similarity) + choose + _INTO + MERGE_ROWS,
    )


def neighbours_body(score: str) -> str:
    """A body that merges the r(N) pairs of neighbours of highest score, for a score of another method's own.

    Args:
        score: statements as :func:`~tsmerge_export.methods.matching_onnx.match_one` takes them.
    """
    front = HEAD + BOUNDS + REMOVED + match_one(score)
    return front + best_of("rank", "some") + _SOURCE + PLACE + TARGET_ONE + ROWS_ONE


def by_similarity(
    one: Callable[[str, bool], str], band: Callable[[str], str], dense: Callable[[str], str]
) -> dict[str, str]:
    """Bodies by the names that :func:`variant` gives; each argument makes one from a similarity (and causality)."""
    out = {}
    for similarity in SIMILARITIES:
        end = _suffix(similarity)
        for causal in (False, True):
            out[f"k1{end}{'_causal' * causal}"] = one(similarity, causal)
        out[f"band{end}"] = band(similarity)
        out[f"dense{end}"] = dense(similarity)
    return out


def _suffix(similarity: str) -> str:
    return "" if similarity == SIMILARITIES[0] else f"_{similarity}"


def variant(attributes: Mapping[str, int | float]) -> str:
    """Which body a node takes: by k, so that its cost class is known from the node, and by the similarity."""
    k = attributes["k"]
    reach = "k1" if k == 1 else "band" if 1 < k <= BAND_MAX else "dense"
    similarity = SIMILARITIES[int(attributes.get("similarity", 0))]
    return (
        reach + _suffix(similarity) + "_causal" * int(attributes.get("causal", 0)) + run_time_end(attributes)
    )
