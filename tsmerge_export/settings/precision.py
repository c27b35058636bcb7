"""In which precision the weights of a file are kept, and what of it stays float32."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tsmerge_export.errors import UsageError

FP32, INT8, INT8_STATIC = "fp32", "int8", "int8-static"
INT8_WEIGHTS, INT4_WEIGHTS = "int8-weights", "int4-weights"
FP16, BF16 = "fp16", "bf16"
#: Weights and products in half, see :mod:`tsmerge_export.precision.half`.
HALVES = (FP16, BF16)
#: ``int8``: weights in 8 bits by output channel, activations in 8 bits by tensor, scaled as they come; in
#: ``int8-static`` their scales are found beforehand, on calibration series. ``int8-weights`` and ``int4-weights``:
#: weights alone, in blocks; the products are float32.
QUANTISED = (INT8, INT8_STATIC, INT8_WEIGHTS, INT4_WEIGHTS)
KINDS = (FP32, *QUANTISED, *HALVES)
#: Those that layers can round for in training: what they do follows from the values there and then.
TRAINABLE = (INT8, INT8_WEIGHTS, INT4_WEIGHTS)
#: Among the names of what stays float32: what is found to hurt.
AUTO = "auto"
#: By how many per cent the weighted quantile loss may rise where :data:`AUTO` is given no limit.
BUDGET = 1.0


@dataclass(frozen=True)
class Precision:
    """What ``--precision`` and the flags beside it ask for.

    Attributes:
        kind: a name of :data:`KINDS`.
        keep: products that stay float32: names of nodes, or of modules or scopes with all that is in them; :data:`AUTO`
            is those that hurt most, as many as it takes to stay within ``max_increase``, or :data:`BUDGET`; they get
            :attr:`kept_at`.
        max_increase: by how many per cent the weighted quantile loss may rise at most over the float32 file, held
            against the bound of 90 % confidence; None: it is measured and not judged.

    Raises:
        UsageError: no such precision, or what has no effect without one.
    """

    kind: str = FP32
    keep: tuple[str, ...] = ()
    max_increase: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--precision {self.kind}: choose one of {', '.join(KINDS)}")
        given = (("--keep-precise", bool(self.keep)), ("--max-increase", self.max_increase is not None))
        for flag, there in given:
            if there and not self.low:
                raise UsageError(f"{flag} has no effect with --precision {FP32}; leave it out")
        if self.auto and self.half:
            raise UsageError(
                f"--keep-precise {AUTO}: is for {', '.join(QUANTISED)}; with {self.kind} name modules or nodes"
            )
        if self.max_increase is not None and not 0 <= self.max_increase < math.inf:
            raise UsageError(f"max_increase {self.max_increase!r} must be a number of at least 0")

    @property
    def low(self) -> bool:
        """Whether anything is below float32."""
        return self.kind != FP32

    @property
    def half(self) -> bool:
        """Whether it is one of :data:`HALVES`."""
        return self.kind in HALVES

    @property
    def calibrated(self) -> bool:
        """Whether activations get their scales before the model runs."""
        return self.kind == INT8_STATIC

    @property
    def auto(self) -> bool:
        """Whether what hurts is to be found."""
        return AUTO in self.keep

    @property
    def named(self) -> tuple[str, ...]:
        """What stays float32 by name."""
        return tuple(name for name in self.keep if name != AUTO)

    @property
    def raised(self) -> Precision | None:
        """What products get that :data:`AUTO` finds to hurt, where that is not float32: of 4 bits, 8."""
        return Precision(INT8_WEIGHTS) if self.kind == INT4_WEIGHTS else None

    @property
    def kept_at(self) -> str:
        """The same as a kind."""
        return FP32 if self.raised is None else self.raised.kind

    @property
    def bits(self) -> int:
        """Of a weight."""
        return {FP32: 32, INT4_WEIGHTS: 4, FP16: 16, BF16: 16}.get(self.kind, 8)

    def flags(self) -> list[str]:
        """The flags of the command line that ask for it; none for float32."""
        if not self.low:
            return []
        out = ["--precision", self.kind]
        if self.keep:
            out += ["--keep-precise", ",".join(self.keep)]
        return out if self.max_increase is None else [*out, "--max-increase", f"{self.max_increase:g}%"]


#: As exported.
FLOAT32 = Precision()
