"""What the operators of domain ``tsmerge`` take and give: one declarative record per operator.

The rewriter makes nodes from these records, checkers and lowerings read them. Version 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.methods.pitome import ALPHA_MOST

DOMAIN = "tsmerge"
VERSION = 1

#: Element types (ONNX names) that tokens may have; everything is accumulated in float32.
FLOATS = ("float32", "float16", "bfloat16")
ANY = ("any",)

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Attribute:
    """An attribute, its range (both ends included) and its meaning. Whole unless ``real``, needed unless ``optional``.

    A node without an optional attribute is one with its value at 0.
    """

    name: str
    doc: str
    least: float = 0
    most: float = _INT64_MAX
    real: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Value:
    """An input or output: name, dims (names are symbols; ``...`` is any number of dims) and element types."""

    name: str
    dims: tuple[str, ...]
    types: tuple[str, ...]
    doc: str


@dataclass(frozen=True)
class Schema:
    """One operator.

    Attributes:
        merges: it removes tokens; its inputs and outputs are those of LocalMerge.
        data_dependent: the length of its outputs follows from values, not from shapes and attributes. A lowering for a
            runtime that must know lengths beforehand refuses such an operator.
    """

    op_type: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: tuple[Attribute, ...]
    doc: str
    merges: bool = False
    data_dependent: bool = False

    def check(self, attributes: Mapping[str, int | float]) -> None:
        """Raise UsageError unless the declared attributes, and no others, are there, of their types and ranges."""
        names = [attribute.name for attribute in self.attributes]
        for name in attributes:
            if name not in names:
                raise UsageError(
                    f"{self.op_type} has no attribute {name!r}; it has: {', '.join(names) or 'none'}"
                )
        for attribute in self.attributes:
            value = attributes.get(attribute.name)
            if value is None and attribute.optional:
                continue
            if value is None:
                raise UsageError(f"{self.op_type} needs the attribute {attribute.name!r}")
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float) if attribute.real else int)
                or not attribute.least <= value <= attribute.most
            ):
                raise UsageError(
                    f"{self.op_type}: {attribute.name}={value!r} must be a {'' if attribute.real else 'whole '}number "
                    f"from {attribute.least}"
                    + (f" to {attribute.most}" if attribute.most != _INT64_MAX else " up")
                )
        if "ratio_den" in names and 2 * attributes["ratio_num"] > attributes["ratio_den"]:
            raise UsageError(
                f"{self.op_type}: ratio {attributes['ratio_num']}/{attributes['ratio_den']} must be at most 1/2"
            )
        if "prune_den" in names and attributes["prune_num"] > attributes["prune_den"]:
            raise UsageError(f"{self.op_type}: the share to prune must be at most 1")
        if attributes.get("residual_num", 0) > attributes.get("residual_den", 0):
            raise UsageError(f"{self.op_type}: the residual's share to prune must be at most 1")
        if attributes.get("causal") and (attributes["k"] != 1 or attributes["protect_first"] < 1):
            raise UsageError(f"{self.op_type}: causal needs k = 1 and protect_first >= 1")
        if "ratio_num" in names and attributes["ratio_num"] and attributes["r"]:
            raise UsageError(f"{self.op_type}: r and ratio_num exclude each other; set one of them to 0")


_TOKENS = (
    Value("x", ("B", "N", "D"), FLOATS, "tokens, N >= 1"),
    Value("metric", ("B", "N", "Dm"), FLOATS, "features compared"),
    Value("size", ("B", "N"), ("float32",), "original tokens per token; 0 is padding"),
)

_MERGED = (
    Value("y", ("B", "M", "D"), FLOATS, "surviving tokens in their old order, type of x; M = N - r"),
    Value("size_out", ("B", "M"), ("float32",), "original tokens per surviving token"),
    Value("kept", ("B", "M"), ("int64",), "index in the input of each surviving token, strictly increasing"),
    Value("target", ("B", "N"), ("int64",), "index in the output that each input token is read from"),
)

_K = Attribute(
    "k", "neighbourhood |i - j| < k in token pairs; 0 compares all tokens (ToMe)", most=1_000_000_000
)
_SIMILARITY = Attribute(
    "similarity",
    "index into config.SIMILARITIES: 0 cosine, 1 l2, 2 dot; all from -1 to 1, compared in whole steps of 2^-20",
    most=2,
    optional=True,
)
_CAUSAL = Attribute(
    "causal",
    "1: target is the last survivor at or before a token; needs k = 1 and protect_first >= 1",
    most=1,
    optional=True,
)
_BOUNDS = (
    Attribute("min_tokens", "leave at least this many", most=1_000_000_000),
    Attribute("protect_first", "so many tokens at the front take no part", most=1_000_000_000),
    Attribute("protect_last", "so many tokens at the end take no part", most=1_000_000_000),
)

LOCAL_MERGE = Schema(
    op_type="LocalMerge",
    inputs=_TOKENS,
    outputs=_MERGED,
    attributes=(
        _K,
        Attribute("r", "tokens to remove; 0 when a ratio is given", most=1_000_000_000),
        Attribute("ratio_num", "share of N to remove, numerator; 0 when r is given", most=1_000_000),
        Attribute("ratio_den", "share of N to remove, denominator", least=1, most=1_000_000),
        *_BOUNDS,
        _SIMILARITY,
        _CAUSAL,
    ),
    doc="Local token merging, arXiv 2405.17951, section 3. r(N) = min(r + N*ratio_num//ratio_den, "
    "(N - protect_first - protect_last)//2, N - min_tokens), at least 0: a function of N alone.",
    merges=True,
)

DYNAMIC_MERGE = Schema(
    op_type="DynamicMerge",
    inputs=_TOKENS,
    outputs=_MERGED,
    attributes=(
        _K,
        Attribute("threshold", "similarity, compared in whole steps of 2^-20", least=-1, most=1, real=True),
        *_BOUNDS,
        _SIMILARITY,
        _CAUSAL,
    ),
    doc="Dynamic token merging, arXiv 2405.17951, section 3: as LocalMerge, but r is the mean over the batch of how "
    "many ranks exceed the threshold, rounded down, at most (N - protect_first - protect_last)//2 and N - min_tokens.",
    merges=True,
    data_dependent=True,
)

PITOME_MERGE = Schema(
    op_type="PitomeMerge",
    inputs=LOCAL_MERGE.inputs,
    outputs=LOCAL_MERGE.outputs,
    attributes=(
        *LOCAL_MERGE.attributes[1:-2],  # without k, similarity and causal
        Attribute("margin", "cosine from which tokens are alike", least=-1, most=1, real=True),
        Attribute("alpha", "weight of tokens that are not alike", most=ALPHA_MOST, real=True),
        Attribute("energy", "index into config.ENERGIES: 0 elu, 1 gaussian (without alpha)", most=1),
    ),
    doc="PiToMe, arXiv 2405.16148, section 3: merges half of the 2r(N) tokens of highest energy into the other half. "
    "r(N) as of LocalMerge.",
    merges=True,
)

SSM_MERGE = Schema(
    op_type="SsmMerge",
    inputs=LOCAL_MERGE.inputs,
    outputs=LOCAL_MERGE.outputs,
    attributes=(
        *LOCAL_MERGE.attributes[1:-2],  # without k, similarity and causal
        Attribute("prune_num", "share of the removed tokens that is pruned, numerator", most=1_000_000),
        Attribute("prune_den", "the same, denominator", least=1, most=1_000_000),
        Attribute(
            "residual_num",
            "with residual_den, the share of the residual x - metric; prune_num is then of the metric",
            most=1_000_000,
            optional=True,
        ),
        Attribute(
            "residual_den", "the same, denominator; 0: one choice for x", most=1_000_000, optional=True
        ),
    ),
    doc="Token reduction of arXiv 2410.14725, section 4: the r(N) less important tokens that are most like a more "
    "important one are merged into it, or pruned. r(N) as of LocalMerge. With residual_den, D = Dm, and the metric "
    "(hidden states) and x - metric (residual) are reduced apart along the same links.",
    merges=True,
)

UNMERGE = Schema(
    op_type="Unmerge",
    inputs=(
        Value("y", ("B", "M", "..."), ANY, "merged tokens, rank 2 or more"),
        Value("target", ("B", "N"), ("int64",), "from LocalMerge"),
    ),
    outputs=(Value("z", ("B", "N", "..."), ANY, "every original token's copy of the token it went into"),),
    attributes=(),
    doc="Gives every original token a copy of the token it went into.",
)

GATHER_PAIRS = Schema(
    op_type="GatherPairs",
    inputs=(
        Value(
            "value", ("1", "H", "N", "N"), ANY, "one number per head and pair of tokens, shared by all rows"
        ),
        Value("plane", ("P", "H"), ANY, "the same numbers, heads last, so that a pair is one contiguous row"),
        Value("kept", ("B", "M"), ("int64",), "index among the N tokens of each surviving one, increasing"),
        Value(
            "stride", ("1",), ("int64",), "the pair (i, j) is row i * stride + j + offset of plane: N, or ..."
        ),
        Value("offset", ("1",), ("int64",), "... -1 for a table of distances j - i, whose centre is offset"),
    ),
    outputs=(Value("z", ("R", "H", "M", "M"), ANY, "R = B, or 1 where M = N: then it is value itself"),),
    attributes=(),
    doc="Brings a relative position bias to the surviving tokens of every row.",
)

DISTANCE_PLANE = Schema(
    op_type="DistancePlane",
    inputs=(
        Value(
            "table",
            ("2C", "H"),
            ANY,
            "row C + d: the numbers of distance d, heads last; C >= N, a multiple of 32",
        ),
        Value("centre", ("1",), ("int64",), "C"),
        Value("tokens", ("1",), ("int64",), "N"),
    ),
    outputs=(Value("plane", ("H", "N", "N"), ANY, "plane[h, i, j] = table[C + j - i, h]"),),
    attributes=(),
    doc="A relative position bias from its numbers per distance.",
)

SCHEMAS: Mapping[str, Schema] = {
    schema.op_type: schema
    for schema in (LOCAL_MERGE, DYNAMIC_MERGE, PITOME_MERGE, SSM_MERGE, UNMERGE, GATHER_PAIRS, DISTANCE_PLANE)
}


def schema(op_type: str) -> Schema:
    """The record of an operator. Raises UnsupportedError for a name that the domain does not have."""
    found = SCHEMAS.get(op_type)
    if found is None:
        raise UnsupportedError(f"{DOMAIN}.{op_type} is not an operator; the domain has: {', '.join(SCHEMAS)}")
    return found


def merge_op_types() -> tuple[str, ...]:
    """Operators that remove tokens: ``(x, metric, size) -> (y, size_out, kept, target)``."""
    return tuple(name for name, entry in SCHEMAS.items() if entry.merges)


def attributes_of(node: onnx.NodeProto) -> dict[str, int | float]:
    """A node's attributes as :meth:`Schema.check` takes them."""
    return {a.name: a.f if a.type == onnx.AttributeProto.FLOAT else a.i for a in node.attribute}
