"""What the attacks are made of: graphs around an attention where tokens can merge."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WIDTH = 8
Write = Callable[[Path], object]


def info(name: str, kind: int = FLOAT, dims: Sequence[Any] | None = ("batch", "tokens", WIDTH)) -> Any:
    """A value's description."""
    return helper.make_tensor_value_info(name, kind, dims)


def op(op_type: str, inputs: Sequence[str], output: str = "y", domain: str = "", **attributes: Any) -> Any:
    """A node with one output."""
    return helper.make_node(op_type, list(inputs), [output], name=f"n_{output}", domain=domain, **attributes)


def attention() -> list[Any]:
    """Where tokens can merge: ``x`` -> ``a``, with the weights of :func:`weights`."""
    return [
        op("Transpose", ["x"], "k", perm=[0, 2, 1]), op("MatMul", ["x", "k"], "s"), op("Softmax", ["s"], "p", axis=-1),
        op("MatMul", ["p", "x"], "o"), op("MatMul", ["o", "w"], "z"), op("Add", ["z", "x"], "a"),
    ]  # fmt: skip


def weights() -> list[Any]:
    return [numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) / 2, "w")]


def model(
    nodes: Sequence[Any],
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    constants: Sequence[Any] = (),
    functions: Sequence[Any] = (),
    domains: Sequence[str] = (),
    opset: int = 18,
) -> onnx.ModelProto:
    """A graph ``x`` -> ``y``; the nodes come behind :func:`attention` and read its ``a``."""
    graph = helper.make_graph(
        [*attention(), *nodes], "g", list(inputs or [info("x")]), list(outputs or [info("y", FLOAT, None)]),
        [*weights(), *constants],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)


def saved(made: onnx.ModelProto) -> Write:
    return lambda path: path.write_bytes(made.SerializeToString())


def constant(name: str, value: Any, dtype: Any = np.int64) -> Any:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def function(name: str, nodes: Sequence[Any], domain: str = "f", **more: Any) -> Any:
    """``a`` -> ``b``."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    return helper.make_function(domain, name, ["a"], ["b"], list(nodes), imports, **more)


def chain(length: int, calls: int) -> list[Any]:
    """Functions of which each calls the one before it that many times."""
    out = [function("f0", [op("Relu", ["a"], "b")])]
    for index in range(1, length):
        names = ["a", *(f"t{n}" for n in range(calls - 1)), "b"]
        out.append(
            function(
                f"f{index}",
                [op(f"f{index - 1}", [i], o, "f") for i, o in itertools.pairwise(names)],
            )
        )
    return out


def changed(made: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    """What was made, changed."""
    change(made)
    return made
