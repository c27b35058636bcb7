"""The attack list: ONNX files that are meant to hang, crash or confuse whoever opens them, written by a generator.

:func:`attacks` gives name -> what writes the file. A few are valid on purpose: they must work, not merely be survived.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WIDTH = 8
Write = Callable[[Path], object]
#: Attacks that are no attacks.
VALID = (
    "valid",
    "functions-chain-50",
    "functions-overloaded",
    "functions-unused-recursion-free",
    "if-nested-5",
)


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


def _functions() -> Iterator[tuple[str, Write]]:
    relu = [op("Relu", ["a"], "b")]

    def calls(
        last: str, functions: Sequence[Any], domains: Sequence[str] = ("f",), domain: str = "f"
    ) -> Write:
        return saved(model([op(last, ["a"], "y", domain)], functions=functions, domains=domains))

    yield "functions-10-by-10", calls("f9", chain(10, 10))
    yield "functions-2-to-the-30", calls("f30", chain(31, 2))
    yield "functions-2-to-the-90", calls("f90", chain(91, 2))
    yield "functions-chain-50", calls("f49", chain(50, 1))
    yield "functions-chain-99-backwards", calls("f98", chain(99, 1)[::-1])
    yield "functions-chain-5000", calls("f4999", chain(5000, 1))
    yield "functions-recursive", calls("r", [function("r", [op("r", ["a"], "b", "f")])])
    mutual = [function("p", [op("q", ["a"], "b", "f")]), function("q", [op("p", ["a"], "b", "f")])]
    yield "functions-mutual", calls("p", mutual)
    yield "functions-duplicate", calls("d", [function("d", relu), function("d", [op("Sigmoid", ["a"], "b")])])
    yield "functions-shadowing", calls("Relu", [function("Relu", [op("Sigmoid", ["a"], "b")], "")], (), "")
    yield "functions-shadowing-alias", calls("Relu", [function("Relu", relu, "ai.onnx")], (), "")
    yield "functions-not-imported", calls("d", [function("d", relu)], ())
    yield "functions-missing", calls("nobody", [function("d", relu)])
    yield "functions-overloaded", calls("d", [function("d", relu), function("d", relu, overload="other")])
    yield "functions-unused-recursion-free", calls("d", [function("d", relu), function("e", relu)])
    yield (
        "functions-unused-recursion",
        calls("d", [function("d", relu), function("e", [op("e", ["a"], "b", "f")])]),
    )
    yield "functions-no-output", calls("d", [function("d", [op("Relu", ["a"], "c")])])
    yield "functions-of-unknown-operators", calls("d", [function("d", [op("Relooo", ["a"], "b")])])
    wide = op("d", ["a", "a", "a"], "y", "f")
    yield "functions-too-many-inputs", saved(model([wide], functions=[function("d", relu)], domains=["f"]))
    inner = helper.make_graph([op("r", ["a"], "c", "f")], "then", [], [info("c", FLOAT, None)])
    branch = [op("If", ["yes"], "b", then_branch=inner, else_branch=inner)]
    branch.insert(0, op("Constant", [], "yes", value=constant("", True, bool)))
    yield "functions-recursive-in-a-branch", calls("r", [function("r", branch)])


def _body(nodes: Sequence[Any], condition: str = "c2") -> Any:
    inputs = [info("i", INT64, []), info("c", BOOL, []), info("s", FLOAT, None)]
    return helper.make_graph(
        list(nodes), "body", inputs, [info(condition, BOOL, []), info("s2", FLOAT, None)]
    )


def _loops() -> Iterator[tuple[str, Write]]:
    same, work = op("Identity", ["c"], "c2"), op("Relu", ["s"], "s2")
    many = constant("m", 2**62)

    def loop(inputs: Sequence[str], body: Any, *constants: Any) -> Write:
        return saved(model([op("Loop", inputs, body=body)], constants=constants))

    yield "loop-endless", loop(["", "", "a"], _body([same, work]))
    yield "loop-huge-count", loop(["m", "", "a"], _body([same, work]), many)
    yield "loop-without-work", loop(["m", "", "a"], _body([op("Identity", ["s"], "s2")], "c"), many)
    yield (
        "loop-while-data",
        loop(
            ["", "", "a"],
            _body(
                [
                    op("ReduceSum", ["s"], "t", keepdims=0),
                    op("IsNaN", ["t"], "n"),
                    op("Not", ["n"], "c2"),
                    work,
                ]
            ),
        ),
    )
    inner = op("Loop", ["m", "", "s"], "s2", body=_renamed(_body([same, work])))
    yield "loop-nested", loop(["m", "", "a"], _body([same, inner]), constant("m", 100_000_000))
    grown = [same, op("Concat", ["s", "s"], "s2", axis=1)]
    yield "loop-that-grows", loop(["m", "", "a"], _body(grown), constant("m", 60))
    yield "loop-no-body", saved(model([op("Loop", ["m", "", "a"])], constants=[many]))
    yield "loop-empty", saved(model([op("Loop", ["", "", ""], body=_body([same, work]))]))
    for depth in (5, 14, 30):
        yield f"if-nested-{depth}", saved(_branches(depth))


def _renamed(body: Any) -> Any:
    text = body.SerializeToString()
    out = onnx.GraphProto.FromString(text)
    for node in out.node:
        node.input[:] = [f"{name}_" for name in node.input]
        node.output[:] = [f"{name}_" for name in node.output]
    for value in (*out.input, *out.output):
        value.name += "_"
    return out


def _branches(depth: int) -> onnx.ModelProto:
    out = helper.make_graph([op("Relu", ["a"], "v0")], "b0", [], [info("v0", FLOAT, None)])
    for index in range(1, depth):
        node = op("If", ["yes"], f"v{index}", then_branch=out, else_branch=out if depth < 8 else _leaf(index))
        out = helper.make_graph([node], f"b{index}", [], [info(f"v{index}", FLOAT, None)])
    last = op("If", ["yes"], then_branch=out, else_branch=_leaf(0))
    return model([last], constants=[constant("yes", True, bool)])


def _leaf(index: int) -> Any:
    return helper.make_graph([op("Neg", ["a"], f"e{index}")], "e", [], [info(f"e{index}", FLOAT, None)])


def _values() -> Iterator[tuple[str, Write]]:
    relu = [op("Relu", ["a"])]

    def inputs(*values: Any) -> Write:
        return saved(model(relu, inputs=[info("x"), *values]))

    bare = onnx.ValueInfoProto(name="u")
    for kind in ("sequence_type", "optional_type", "map_type", "sparse_tensor_type"):
        value = onnx.ValueInfoProto(name="u")
        getattr(value.type, kind).SetInParent()
        yield f"input-{kind}", inputs(value)
        yield f"output-{kind}", saved(model(relu, outputs=[info("y", FLOAT, None), value]))
    yield "input-without-type", inputs(bare)
    yield "only-input-without-type", saved(model(relu, inputs=[onnx.ValueInfoProto(name="x")]))
    yield "output-without-type", saved(model(relu, outputs=[onnx.ValueInfoProto(name="y")]))
    for kind in (0, 8, 14, 16, 17, 22, 99, 2**31 - 1):
        yield f"input-element-{kind}", inputs(info("u", kind, ["batch"]))
        yield f"output-element-{kind}", saved(model(relu, outputs=[info("y", kind, None)]))
    negative, huge = ["batch", -1, WIDTH], ["batch", 2**62, 2**62]
    shapes = {
        "negative": negative, "65-dims": [1] * 65, "33-dims": [1] * 33, "100000-dims": [1] * 100_000, "huge": huge,
        "zero": [0, WIDTH], "scalar": [], "large": [2**20, 2**20], "named-alike": ["batch"] * 5,
        "odd-name": ["a b\n\x1b[31m"],
    }  # fmt: skip
    for name, dims in shapes.items():
        yield f"input-{name}", inputs(info("u", FLOAT, dims))
        yield f"only-input-{name}", saved(model(relu, inputs=[info("x", FLOAT, dims)]))
        yield f"output-{name}", saved(model(relu, outputs=[info("y", FLOAT, dims)]))
    yield "input-twice", inputs(info("x"))
    yield "output-twice", saved(model(relu, outputs=[info("y", FLOAT, None)] * 2))
    yield "output-of-nobody", saved(model(relu, outputs=[info("nobody", FLOAT, None)]))
    yield "output-is-input", saved(model(relu, outputs=[info("x")]))
    yield "output-is-weight", saved(model(relu, outputs=[info("w", FLOAT, None)]))
    yield "no-outputs", saved(_changed(model(relu), lambda m: m.graph.ClearField("output")))
    yield "no-inputs", saved(_changed(model(relu), lambda m: m.graph.ClearField("input")))


def _changed(made: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    change(made)
    return made


def _nodes() -> Iterator[tuple[str, Write]]:
    plain = ("Add", "MatMul", "Gemm", "Conv", "Gather", "Reshape", "Slice", "Concat", "Identity", "Split", "Softmax",
             "LayerNormalization", "Attention", "RotaryEmbedding", "Transpose", "Cast", "Constant", "Shape", "Einsum",
             "If", "Scan", "Where", "Expand", "Sum", "Max", "Pad", "Resize", "LSTM", "BatchNormalization")  # fmt: skip
    for op_type in plain:
        opset = 23 if op_type in ("Attention", "RotaryEmbedding") else 18
        yield f"node-{op_type}-no-inputs", saved(model([op(op_type, [])], opset=opset))
        yield f"node-{op_type}-empty-inputs", saved(model([op(op_type, ["", "", ""])], opset=opset))
        yield f"node-{op_type}-many-inputs", saved(model([op(op_type, ["a"] * 40)], opset=opset))
        yield f"node-{op_type}-tokens-everywhere", saved(model([op(op_type, ["a", "a"])], opset=opset))
    yield "node-no-output", saved(model([helper.make_node("Relu", ["a"], []), op("Relu", ["a"])]))
    yield "node-empty-output", saved(model([helper.make_node("Relu", ["a"], [""]), op("Relu", ["a"])]))
    yield "node-two-outputs", saved(model([helper.make_node("Relu", ["a"], ["y", "y"])]))
    yield "node-without-type", saved(model([op("", ["a"])]))
    yield "node-unknown-type", saved(model([op("Relooo", ["a"])]))
    yield "node-unknown-domain", saved(model([op("Relu", ["a"], "y", "nobody")]))
    yield "node-newer-than-opset", saved(model([op("Attention", ["a", "a", "a"])], opset=18))
    yield "node-reads-nobody", saved(model([op("Add", ["a", "nobody"])]))
    yield "node-reads-itself", saved(model([op("Add", ["a", "y"])]))
    yield "value-twice", saved(model([op("Relu", ["a"]), op("Neg", ["a"])]))
    yield "value-named-as-input", saved(model([op("Relu", ["a"], "x"), op("Relu", ["x"])]))
    yield "value-named-as-weight", saved(model([op("Relu", ["a"], "w"), op("Relu", ["w"])]))
    yield "attribute-wrong-type", saved(model([op("Softmax", ["a"], axis="one")]))
    yield "attribute-unknown", saved(model([op("Softmax", ["a"], axes=[1])]))
    yield "attribute-out-of-range", saved(model([op("Softmax", ["a"], axis=2**62)]))
    yield "attribute-reference-in-graph", saved(_changed(model([op("Softmax", ["a"], axis=1)]), _refer))
    for name in ("LocalMerge", "DynamicMerge", "Unmerge", "Nothing"):
        for count in (0, 1, 3):
            node = helper.make_node(name, ["a"] * count, ["y"], domain="tsmerge", r=2**60)
            yield f"ours-{name}-{count}", saved(model([node], domains=["tsmerge"]))
    body = function("LocalMerge", [op("Relu", ["a"], "b")], "tsmerge")
    ours = helper.make_node("LocalMerge", ["a"], ["y"], domain="tsmerge")
    yield "ours-forged", saved(model([ours], functions=[body], domains=["tsmerge"]))
    yield (
        "nodes-60000",
        saved(
            model(
                [
                    op("Relu", [f"t{n}" if n else "a"], f"t{n + 1}" if n < 59_999 else "y")
                    for n in range(60_000)
                ]
            )
        ),
    )
    yield "names-long", saved(model([op("Relu", ["a"], "q" * 2**20), op("Relu", ["q" * 2**20])]))
    yield "names-odd", saved(model([op("Relu", ["a"], "\x1b[31m\n\0"), op("Relu", ["\x1b[31m\n\0"])]))
    yield (
        "names-no-text",
        lambda path: path.write_bytes(
            model([op("Relu", ["a"], "QQQQ"), op("Relu", ["QQQQ"])])
            .SerializeToString()
            .replace(b"QQQQ", b"\xff\xfe\xff\xfe")
        ),
    )


def _refer(made: onnx.ModelProto) -> None:
    attribute = made.graph.node[-1].attribute[0]
    attribute.ClearField("i")
    attribute.ref_attr_name = "nobody"


def _kernels() -> Iterator[tuple[str, Write]]:
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


def _tensors() -> Iterator[tuple[str, Write]]:
    def weight(change: Callable[[Any], object]) -> Write:
        made = model([op("Relu", ["a"])])
        change(made.graph.initializer[0])
        return saved(made)

    for name, dims in {
        "negative": [-8, -8], "short": [8, 9], "long": [8, 7], "65-dims": [1] * 64 + [64], "huge": [2**40, 2**40],
        "none": [], "overflow": [2**33, 2**33, 0],
    }.items():  # fmt: skip
        yield f"weight-dims-{name}", weight(lambda t, d=dims: (t.ClearField("dims"), t.dims.extend(d)))
    for kind in (0, 8, 14, 17, 22, 23, 99):
        yield f"weight-element-{kind}", weight(lambda t, k=kind: setattr(t, "data_type", k))
    yield "weight-no-data", weight(lambda t: t.ClearField("raw_data"))
    yield "weight-segment", weight(lambda t: setattr(t.segment, "end", 5))

    def external(location: str, **more: str) -> Write:
        def write(path: Path) -> None:
            made = model([op("Relu", ["a"])])
            tensor = made.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": location, "length": "256", **more}.items():
                tensor.external_data.add(key=key, value=value)
            for name, target in (("loop", "loop"), ("first", "second"), ("second", "first"), ("up", "..")):
                if not (path.parent / name).is_symlink():
                    (path.parent / name).symlink_to(target)
            (path.parent / "short").write_bytes(bytes(16))
            path.write_bytes(made.SerializeToString())

        return write

    for location in ("loop", "first", "loop/x", "up/x", "../x", "/etc/hostname", "/dev/zero", "", ".", "\0", "short",
                     "nobody", "a\\b", "x" * 5000, "\x1b[31m"):  # fmt: skip
        yield f"external-{location[:12]!r}-{len(location)}", external(location)
    for key, value in (
        ("offset", "-1"),
        ("offset", "9" * 30),
        ("offset", "one"),
        ("length", "-5"),
        ("length", "9" * 5000),
    ):
        yield f"external-{key}-{value[:8]}-{len(value)}", external("short", **{key: value})
    yield (
        "weight-sparse",
        saved(
            _changed(
                model([op("Relu", ["a"])]),
                lambda m: m.graph.sparse_initializer.add().values.CopyFrom(weights()[0]),
            )
        ),
    )
    yield "weight-twice", saved(model([op("Relu", ["a"])], constants=weights()))


def _whole() -> Iterator[tuple[str, Write]]:
    good = model([op("Relu", ["a"])])

    def change(how: Callable[[onnx.ModelProto], object]) -> Write:
        return saved(_changed(onnx.ModelProto.FromString(good.SerializeToString()), how))

    yield "valid", saved(good)
    for version in (-1, 0, 1, 999, 2**62):
        yield f"opset-{version}", change(lambda m, v=version: setattr(m.opset_import[0], "version", v))
        yield f"ir-version-{version}", change(lambda m, v=version: setattr(m, "ir_version", v))
    yield "opset-missing", change(lambda m: m.ClearField("opset_import"))
    yield "opset-twice", change(lambda m: m.opset_import.extend([helper.make_opsetid("ai.onnx", 11)]))
    yield "graph-missing", change(lambda m: m.ClearField("graph"))
    yield (
        "notes-odd",
        change(lambda m: m.graph.node[0].metadata_props.add(key="tsmerge.barrier", value="\x1b[31m")),
    )
    yield "training", change(lambda m: m.training_info.add().initialization.node.add(op_type="Relu"))
    yield "file-empty", lambda path: path.write_bytes(b"")
    yield "file-zeros", lambda path: path.write_bytes(bytes(10_000))
    yield "file-text", lambda path: path.write_text("<html>not found</html>" * 50)
    yield "file-json", lambda path: path.write_text("{}")
    yield "file-zip", lambda path: path.write_bytes(b"PK\3\4" + bytes(100))
    yield "file-folder", lambda path: path.mkdir()
    yield "file-pipe", os.mkfifo
    yield "file-link-to-itself", lambda path: path.symlink_to(path.name)
    yield "file-device", lambda path: path.symlink_to("/dev/zero")
    yield "file-deep", lambda path: path.write_bytes(_nested(20_000))


def _nested(depth: int) -> bytes:
    """Messages inside each other: graph, node, attribute, graph, ..."""
    out = b""
    for _ in range(depth):
        for field in (6, 5, 1):
            size, length = len(out), b""
            while size > 0x7F:
                length += bytes([size & 0x7F | 0x80])
                size >>= 7
            out = bytes([field << 3 | 2]) + length + bytes([size]) + out
        if len(out) > 60_000:
            break
    size = len(out)
    return b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + out


@cache
def attacks() -> dict[str, Write]:
    """Name -> what writes the file."""
    out: dict[str, Write] = {}
    for group in (_whole, _functions, _loops, _values, _nodes, _kernels, _tensors):
        for name, write in group():
            assert name not in out, name
            out[name] = write
    return out
