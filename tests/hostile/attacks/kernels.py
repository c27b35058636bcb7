"""Numbers that make no sense to an operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.hostile.attacks.graphs import (
    FLOAT,
    Write,
    constant,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    """Numbers that make no sense to an operator: divisions by zero, sizes of petabytes, indices behind the end."""
    shape, zero = [op("Shape", ["a"], "n")], constant("zero", 0)

    def back(*nodes: Any, constants: Sequence[Any] = (), opset: int = 18) -> Write:
        """``v`` is added up and added to the tokens, so that it has to be computed."""
        last = [
            op("Cast", ["v"], "v1", to=FLOAT),
            op("ReduceSum", ["v1"], "v2", keepdims=0),
            op("Add", ["a", "v2"]),
        ]
        return saved(model([*nodes, *last], constants=constants, opset=opset))

    for name in ("Div", "Mod"):
        yield f"integer-{name}-by-zero", back(*shape, op(name, ["n", "zero"], "v"), constants=[zero])
        hidden = [op("Sub", ["n", "n"], "nothing"), op(name, ["n", "nothing"], "v")]
        yield f"integer-{name}-by-hidden-zero", back(*shape, *hidden)
        low = [constant("low", -(2**63)), constant("minus", -1)]
        yield f"integer-{name}-overflow", back(op(name, ["low", "minus"], "v"), constants=low)
    for size in (2**34, 2**40, 2**62):
        big = constant("size", [size])
        yield f"memory-constant-of-shape-{size}", back(op("ConstantOfShape", ["size"], "v"), constants=[big])
        yield (
            f"memory-expand-{size}",
            back(op("Expand", ["one", "size"], "v"), constants=[big, constant("one", [1.0], np.float32)]),
        )
        yield (
            f"memory-tile-{size}",
            back(op("Tile", ["one", "size"], "v"), constants=[big, constant("one", [1.0], np.float32)]),
        )
        limits = [constant("end", size), zero, constant("step", 1)]
        yield f"memory-range-{size}", back(op("Range", ["zero", "end", "step"], "v"), constants=limits)
        pads = [constant("pads", [0, size]), constant("one", [1.0], np.float32)]
        yield f"memory-pad-{size}", back(op("Pad", ["one", "pads"], "v"), constants=pads)
    yield (
        "range-step-zero",
        back(op("Range", ["zero", "end", "zero"], "v"), constants=[zero, constant("end", 9)]),
    )
    for index in (10**6, -(10**6), 2**62):
        at = constant("at", [index])
        yield f"gather-{index}", back(op("Gather", ["w", "at"], "v"), constants=[at])
        yield (
            f"scatter-{index}",
            back(
                op("ScatterElements", ["row", "at", "one"], "v"),
                constants=[at, constant("row", [1, 2], np.float32), constant("one", [1], np.float32)],
            ),
        )
        yield f"slice-{index}", back(op("Slice", ["w", "at", "at"], "v"), constants=[at])
        yield f"reshape-{index}", back(op("Reshape", ["w", "at"], "v"), constants=[at])
    image = constant("image", np.ones((1, 2, 5, 5)), np.float32)
    kernel = constant("kernel", np.ones((2, 2, 3, 3)), np.float32)
    for key in ("strides", "dilations", "kernel_shape", "pads"):
        for value in (0, -1, 2**40):
            numbers = [value] * (4 if key == "pads" else 2)
            yield (
                f"conv-{key}-{value}",
                back(op("Conv", ["image", "kernel"], "v", **{key: numbers}), constants=[image, kernel]),
            )
            more = {} if key == "kernel_shape" else {"kernel_shape": [2, 2]}
            yield (
                f"pool-{key}-{value}",
                back(op("MaxPool", ["image"], "v", **{key: numbers}, **more), constants=[image]),
            )
    for value in (0, -1, 3, 2**40):
        yield (
            f"conv-group-{value}",
            back(op("Conv", ["image", "kernel"], "v", group=value), constants=[image, kernel]),
        )
        yield (
            f"depth-to-space-{value}",
            back(op("DepthToSpace", ["image"], "v", blocksize=value), constants=[image]),
        )
        yield (
            f"split-{value}",
            back(
                helper.make_node("Split", ["image"], ["v", "rest"], num_outputs=value, axis=1),
                constants=[image],
            ),
        )
        yield (
            f"top-k-{value}",
            back(helper.make_node("TopK", ["w", "many"], ["v", "at"]), constants=[constant("many", [value])]),
        )
        yield f"layer-norm-axis-{value}", back(op("LayerNormalization", ["a", "w"], "v", axis=value))
        yield f"flatten-{value}", back(op("Flatten", ["a"], "v", axis=value))
        yield f"concat-{value}", back(op("Concat", ["a", "a"], "v", axis=value))
        yield (
            f"one-hot-{value}",
            back(
                op("OneHot", ["at", "many", "two"], "v"),
                constants=[constant("at", [1]), constant("many", value), constant("two", [0, 1], np.float32)],
            ),
        )
    for equation in ("ij,jk->ik" * 1000, "...", "->", "i" * 60 + "->", "ij,kl,mn->" * 20, "bnd,bnd->bnde"):
        yield (
            f"einsum-{equation[:12]}-{len(equation)}",
            back(op("Einsum", ["a", "a"], "v", equation=equation)),
        )
    scales = constant("scales", [1, 1, 0, -3], np.float32)
    yield "resize-scales", back(op("Resize", ["image", "", "scales"], "v"), constants=[image, scales])
    yield "transpose-perm", back(op("Transpose", ["a"], "v", perm=[7, 7, 7]))
    yield "squeeze-axes", back(op("Squeeze", ["a", "axes"], "v"), constants=[constant("axes", [99])])
    yield "unsqueeze-70", back(op("Unsqueeze", ["a", "axes"], "v"), constants=[constant("axes", range(70))])
    yield "cast-to-nothing", back(op("Cast", ["a"], "v", to=99))
    yield "strings", back(op("Cast", ["a"], "t", to=TensorProto.STRING), op("Cast", ["t"], "v", to=FLOAT))
    yield "random", back(op("RandomNormalLike", ["a"], "v"))
    doubled = [op("Concat", [f"d{n}", f"d{n}"], f"d{n + 1}", axis=1) for n in range(45)]
    yield "memory-doubling", back(op("Identity", ["a"], "d0"), *doubled, op("Identity", ["d45"], "v"))
