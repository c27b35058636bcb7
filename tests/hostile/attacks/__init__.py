"""The attack list: ONNX files that are meant to hang, crash or confuse whoever opens them, written by a generator.

:func:`attacks` gives name -> what writes the file. A few are valid on purpose: they must work, not merely be survived.
"""

from __future__ import annotations

from functools import cache

from tests.hostile.attacks import control_flow, files, functions, kernels, nodes, tensors, values
from tests.hostile.attacks.graphs import Write

#: Attacks that are no attacks.
VALID = (
    "valid",
    "functions-chain-50",
    "functions-overloaded",
    "functions-unused-recursion-free",
    "if-nested-5",
)


@cache
def attacks() -> dict[str, Write]:
    """Name -> what writes the file."""
    out: dict[str, Write] = {}
    for group in (files, functions, control_flow, values, nodes, kernels, tensors):
        for name, write in group.attacks():
            assert name not in out, name
            out[name] = write
    return out
