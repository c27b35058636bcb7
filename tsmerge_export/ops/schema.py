"""What the operators of domain ``tsmerge`` take and give: one declarative record per operator, beside its body.

The rewriter makes nodes from these records, checkers and lowerings read them. Version 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import onnx

from tsmerge_export.errors import UsageError
from tsmerge_export.settings.domain import DOMAIN as DOMAIN
from tsmerge_export.settings.domain import VERSION as VERSION

#: Element types (ONNX names) that tokens may have; everything is accumulated in float32.
FLOATS = ("float32", "float16", "bfloat16")
ANY = ("any",)

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Attribute:
    """An attribute, its range (both ends included) and its meaning. Whole unless ``real``, needed unless ``optional``.

    A node without an optional attribute is one with its value at 0.

    Attributes:
        counts: what it does follows from the number of tokens alone: lengths can tell one value from another.
        word: how a value reads, ``k global``; None: the name and the number, nothing for a whole 0.
    """

    name: str
    doc: str
    least: float = 0
    most: float = _INT64_MAX
    real: bool = False
    optional: bool = False
    counts: bool = False
    word: Callable[[Any], str] | None = None


@dataclass(frozen=True)
class Share:
    """A fraction in two whole attributes, from 0 to ``most``.

    Attributes:
        words: what it is called: ``prune share 1/2``.
        wrong: what is wrong with a larger one; may have ``{num}`` and ``{den}``.
        otherwise: the attribute that counts where the fraction is 0.
    """

    words: str
    num: str
    den: str
    wrong: str
    most: Fraction = Fraction(1)
    otherwise: str | None = None


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
        pads: rows may come out shorter than others, with padding (size 0) behind that the input did not have.
        shares: fractions among the attributes.
        rules: what must hold between attributes; each says what is wrong, or None.
        run_time: it has bodies that take the share of the tokens as an input, :data:`SHARE`.
    """

    op_type: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: tuple[Attribute, ...]
    doc: str
    merges: bool = False
    data_dependent: bool = False
    pads: bool = False
    shares: tuple[Share, ...] = ()
    rules: tuple[Callable[[Mapping[str, int | float]], str | None], ...] = ()
    run_time: bool = False

    def inputs_of(self, attributes: Mapping[str, int | float]) -> tuple[Value, ...]:
        """The inputs of a node: with a ratio that is chosen at run time, it is one more."""
        return (*self.inputs, SHARE) if attributes.get(RUN_TIME.name) else self.inputs

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
        for share in self.shares:
            num, den = attributes.get(share.num, 0), attributes.get(share.den, 0)
            if num * share.most.denominator > share.most.numerator * den:
                raise UsageError(f"{self.op_type}: {share.wrong.format(num=num, den=den)}")
        for rule in self.rules:
            wrong = rule(attributes)
            if wrong is not None:
                raise UsageError(f"{self.op_type}: {wrong}")

    def words(self, attributes: Mapping[str, int | float]) -> str:
        """A node's attributes on one line: how many tokens go, what its method is about, the bounds that are not 0."""
        left = dict(attributes)
        parts = []
        for share in self.shares:
            if share.otherwise in left:
                other = f"{share.otherwise} {left.pop(share.otherwise)}"
                num, den = left.pop(share.num, 0), left.pop(share.den, 1)
                parts.append(f"{share.words} {num}/{den}" if num else other)
        worded = [attribute for attribute in self.attributes if attribute.word and attribute.name in left]
        parts += [a.word(left.pop(a.name)) for a in worded if a.word and not a.real]
        for share in self.shares:
            if share.den in left:
                parts.append(f"{share.words} {left.pop(share.num, 0)}/{left.pop(share.den)}")
        parts += [a.word(left.pop(a.name)) for a in worded if a.word and a.real]
        parts += [
            f"{name.replace('_', '-')} {value:g}"
            for name, value in left.items()
            if value or isinstance(value, float)
        ]
        return ", ".join(parts)


#: Inputs and outputs of every operator that removes tokens.
TOKENS = (
    Value("x", ("B", "N", "D"), FLOATS, "tokens, N >= 1"),
    Value("metric", ("B", "N", "Dm"), FLOATS, "features compared"),
    Value("size", ("B", "N"), ("float32",), "original tokens per token; 0 is padding"),
)
MERGED = (
    Value("y", ("B", "M", "D"), FLOATS, "surviving tokens in their old order, type of x; M = N - r"),
    Value("size_out", ("B", "M"), ("float32",), "original tokens per surviving token"),
    Value("kept", ("B", "M"), ("int64",), "index in the input of each surviving token, strictly increasing"),
    Value("target", ("B", "N"), ("int64",), "index in the output that each input token is read from"),
)

#: Which tokens take part, and how many stay.
BOUNDS = (
    Attribute("min_tokens", "leave at least this many", most=1_000_000_000, counts=True),
    Attribute("protect_first", "so many tokens at the front take no part", most=1_000_000_000, counts=True),
    Attribute("protect_last", "so many tokens at the end take no part", most=1_000_000_000, counts=True),
)

#: How many tokens go, of operators that remove a number or a share of them: ``attributes=(*AMOUNT, *BOUNDS)``,
#: ``shares=(RATIO,)``, ``rules=(one_amount,)``.
AMOUNT = (
    Attribute("r", "tokens to remove; 0 when a ratio is given", most=1_000_000_000, counts=True),
    Attribute("ratio_num", "share of N to remove, numerator; 0 when r is given", most=1_000_000, counts=True),
    Attribute("ratio_den", "share of N to remove, denominator", least=1, most=1_000_000, counts=True),
)
#: Of operators that can take it as an input. The ratio of the attributes is then what the node was made for.
RUN_TIME = Attribute(
    "run_time",
    "1: the share is the input `share`, and ratio_num / ratio_den what it is where nobody chooses",
    most=1,
    optional=True,
    word=lambda value: "chosen at run time" if value else "",
)
SHARE = Value(
    "share", ("2",), ("int64",), "with run_time: numerator and denominator of the share, at most 1/2"
)
RATIO = Share(
    "ratio",
    "ratio_num",
    "ratio_den",
    "ratio {num}/{den} must be at most 1/2",
    most=Fraction(1, 2),
    otherwise="r",
)


def one_amount(attributes: Mapping[str, int | float]) -> str | None:
    """A number and a share exclude each other."""
    if attributes.get(RUN_TIME.name) and not attributes["ratio_num"]:
        return "run_time needs a ratio, which stands in ratio_num"
    both = attributes["ratio_num"] and attributes["r"]
    return "r and ratio_num exclude each other; set one of them to 0" if both else None


def run_time_end(attributes: Mapping[str, int | float]) -> str:
    """What a body's name ends in where the share is an input: ``_run_time``, else nothing."""
    return f"_{RUN_TIME.name}" if attributes.get(RUN_TIME.name) else ""


def attributes_of(node: onnx.NodeProto) -> dict[str, int | float]:
    """A node's attributes as :meth:`Schema.check` takes them."""
    return {a.name: a.f if a.type == onnx.AttributeProto.FLOAT else a.i for a in node.attribute}
