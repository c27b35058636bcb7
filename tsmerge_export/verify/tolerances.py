"""How far an artefact may be from eager PyTorch: the one table.

Changing a number needs a reason in the commit. ``atol`` is a share of the output's scale (the largest magnitude of
the row, see parity.py), ``rtol`` a share of each expected value; both count together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tsmerge_export.errors import UsageError

# No tolerance at or above this proves anything.
LIMIT = 0.1


@dataclass(frozen=True)
class Tolerance:
    """A value passes if ``|got - want| <= atol * scale + rtol * |want|``."""

    atol: float
    rtol: float


# One operator alone, absolute in atol (scale 1).
PER_OP = {
    "float32": Tolerance(1e-5, 1e-4),
    "float16": Tolerance(2.5e-3, 1e-3),
    "bfloat16": Tolerance(2e-2, 1e-2),
}

# A whole model against eager PyTorch on the CPU. Largest errors measured over the corpus, k in {1, 2, 5, global},
# ratios 1/10 to 1/2: chronos-bolt (4 layers, d 128) 1.2e-5 of the scale on the demo model that ships, on constant
# series, where the mean's rounding is the error, else 1.8e-6; chronos-t5 (3 layers, d 96) 1.1e-6. The head-room is
# for deeper models.
END_TO_END = {
    ("chronos-bolt", "float32"): Tolerance(5e-5, 5e-5),
    ("chronos-t5", "float32"): Tolerance(5e-5, 5e-5),
}
_DEFAULT = {
    "float32": Tolerance(1e-4, 1e-4),
    "float16": Tolerance(1e-2, 1e-2),
    "bfloat16": Tolerance(5e-2, 5e-2),
}

# Two scores closer than this may be ordered either way. Scores are cosines in float32 (in [-1, 1], one unit in the
# last place is 6e-8). Measured as above: a score differs by at most 1.2e-6 between eager and ONNX Runtime, so a margin
# between two by 2.4e-6; twice that. No flip that was seen needed more than 5e-7.
SCORE_NOISE = 5e-6


def end_to_end(
    family: str, dtype: str = "float32", atol: float | None = None, rtol: float | None = None
) -> Tolerance:
    """Tolerance of a family at a dtype ("float32", "float16", "bfloat16"), unless the user gives other numbers.

    Raises:
        UsageError: a number is negative, not finite, or 0.1 and more.
    """
    default = END_TO_END.get((family, dtype), _DEFAULT.get(dtype, _DEFAULT["float32"]))
    check_range(atol, rtol)
    return Tolerance(default.atol if atol is None else atol, default.rtol if rtol is None else rtol)


def check_range(atol: float | None, rtol: float | None) -> None:
    """Raise UsageError where a number is negative, not finite, or 0.1 and more."""
    for flag, value in (("--atol", atol), ("--rtol", rtol)):
        if value is not None and not (math.isfinite(value) and 0 <= value < LIMIT):
            raise UsageError(f"{flag} {value} is out of range; it must be at least 0 and below {LIMIT}")
