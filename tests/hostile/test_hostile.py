"""A fixed part of the attack list in seconds; ``python -m tests.hostile.fuzz`` runs all of it, and mutations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.hostile.attacks import VALID, attacks
from tests.hostile.attacks.graphs import FLOAT, INT64, constant, function, info, model, op, saved
from tests.hostile.cases import outcome
from tests.hostile.fuzz import main
from tsmerge_export import api, ops
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.inspection.inspect import inspect_path
from tsmerge_export.tools.bench.worker import peak_bytes
from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_wire import model_of

GROUPS = (
    "attribute",
    "external",
    "file",
    "functions",
    "if",
    "input",
    "names",
    "node",
    "output",
    "value",
    "weight",
)


@pytest.mark.parametrize("group", GROUPS)
def test_files_are_read_or_refused(group: str, tmp_path: Path) -> None:
    """Before any runtime sees them; what is right is read."""
    for name, write in attacks().items():
        if name.partition("-")[0] == group:
            folder = tmp_path / name.replace("/", " ").replace("\0", " ")[:60]
            folder.mkdir()
            write(folder / "m.onnx")
            found = outcome(lambda file=folder / "m.onnx": read_onnx(file))
            assert found in ("ok", "usage", "unsupported"), (name, found)
            assert found == "ok" or name not in VALID, name


def of(name: str, folder: Path) -> onnx.ModelProto:
    attacks()[name](folder / "m.onnx")
    return onnx.load(folder / "m.onnx")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("valid", None),
        ("if-nested-5", None),
        ("functions-chain-50", None),
        ("loop-endless", "operator Loop"),
        ("loop-huge-count", "operator Loop"),
        ("integer-Div-by-zero", "may be by zero"),
        ("integer-Mod-by-hidden-zero", "may be by zero"),
        ("integer-Div-overflow", "may be by zero"),
        ("memory-expand-1099511627776", "Expand of a large size"),
        ("memory-range-1099511627776", "Range of a large size"),
        ("conv-strides-0", "Conv with unusual attributes"),
        ("pool-strides-0", "MaxPool with unusual attributes"),
        ("memory-doubling", "beside itself"),
        ("ours-forged", None),
    ],
)
def test_what_is_not_known_to_be_harmless(name: str, why: str | None, tmp_path: Path) -> None:
    found = risk(of(name, tmp_path))
    assert (found is None) if why is None else (found is not None and why in found)


ROWS = {"x": np.ones((1, 2, 8), np.float32)}


def test_endless_loops_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a flag of the runtime in a process that is watched over, with that process where it is not."""
    file = tmp_path / "m.onnx"
    attacks()["loop-endless"](file)
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", "2")
    with pytest.raises(UnsupportedError, match=r"no answer in 2 s|terminate"):
        GraphSession(file, threads=1).run(ROWS)
    with pytest.raises(UnsupportedError, match=r"no answer in 2 s|terminate"):
        inspect_path(file)
    monkeypatch.setattr(isolated, "inside", True)
    with pytest.raises(UsageError, match="terminate"):
        GraphSession(file, threads=1).run(ROWS)


def test_crashes_stay_outside(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whole numbers divided by zero end the process that divides them."""
    file = tmp_path / "m.onnx"
    attacks()["integer-Div-by-hidden-zero"](file)
    with pytest.raises(UnsupportedError, match=r"m\.onnx.*(ended with signal 8|zero)"):
        inspect_path(file)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("integer-Div-overflow", r"ended with signal 8|overflow"),  # divided when it is opened
        ("memory-doubling", r"allocate|memory"),
    ],
)
def test_no_session_harms(name: str, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A bundle of them ends neither this process nor the machine's memory, opened and run as forecasts do."""
    file = tmp_path / "m.onnx"
    attacks()[name](file)
    before = peak_bytes()
    with pytest.raises(TsmergeError, match=why):
        GraphSession(file, threads=1).run(ROWS)
    assert peak_bytes() - before < 2**28
    assert capfd.readouterr().err == ""


def _divided(divisor: str, *before: object) -> onnx.ModelProto:
    """``count / divisor``, of whole numbers that are given: a session answers with ``y`` of as many."""
    values = [info(name, INT64, ["n"]) for name in ("count", "by")]
    nodes = [*before, op("Div", ["count", divisor], "q"), op("Cast", ["q"], to=FLOAT)]
    return model(nodes, inputs=[info("x"), *values])


def test_a_session_apart_is_as_good(tmp_path: Path) -> None:
    """Same names, dtypes, dims and values as in this process; it goes on after its process was ended by numbers."""
    file = tmp_path / "m.onnx"
    saved(_divided("by"))(file)
    session = GraphSession(file, threads=1)
    feed = {**ROWS, "count": np.array([7, -9]), "by": np.array([2, 4])}
    np.testing.assert_array_equal(session.run(feed)["y"], np.float32([3, -2]))
    with pytest.raises(UnsupportedError, match=r"m\.onnx.*ended with signal 8"):
        session.run({**feed, "count": np.array([-(2**63), 0]), "by": np.array([-1, 1])})
    np.testing.assert_array_equal(session.run(feed)["y"], np.float32([3, -2]))
    with pytest.raises(UnsupportedError, match=r"process of its own \(Div of whole numbers"):
        _ = session.ort
    own = GraphSession(file, threads=1, options=onnxruntime.SessionOptions())
    assert (own.inputs, own.outputs) == (session.inputs, session.outputs)
    np.testing.assert_array_equal(own.run(feed)["y"], np.float32([3, -2]))


ONE, MANY, BIG = constant("one", [1]), constant("many", [1, 128, 1]), constant("big", [2**20])
DOUBLED = [
    node
    for n in range(14)
    for node in (op("Relu", [f"d{n}"], f"e{n}"), op("Concat", [f"d{n}", f"e{n}"], f"d{n + 1}", axis=1))
]


@pytest.mark.parametrize(
    ("made", "harmless"),
    [
        (_divided("by"), False),
        (_divided("least", op("Max", ["by", "one"], "least")), True),
        (_divided("least", op("Max", ["by", "one"], "m"), op("Unsqueeze", ["m", "zero"], "least")), True),
        (_divided("most", op("Min", ["by", "one"], "most")), False),
        (_divided("two", op("Add", ["one", "one"], "two")), True),
        (_divided("none", op("Sub", ["one", "one"], "none")), False),
        (_divided("minus", op("Neg", ["one"], "minus")), False),
        # A name that is another value's inside: what was known of it is known no more.
        (_divided("one2", op("Max", ["by", "one"], "one2"), op("Identity", ["by"], "one2")), False),
        # Behind the node that reads it.
        (model([op("Div", ["late", "late"], "q"), op("Cast", ["x"], "late", to=INT64), op("Relu", ["x"])]), False),
        (_divided("by2", op("f", ["by"], "by2", "f")), False),
        (model([op("Identity", ["a"], "d0"), *DOUBLED, op("Relu", ["d14"])]), False),
        (model([op("Tile", ["a", "many"], "d0"), op("Tile", ["d0", "many"])], constants=[MANY]), False),
        (model([op("Mul", ["big", "big"], "n"), op("ConstantOfShape", ["n"])], constants=[BIG]), False),
        (model([op("TopK", ["a", "one"], "v"), op("Relu", ["v"])]), True),
    ],
)  # fmt: skip
def test_bounds(made: onnx.ModelProto, harmless: bool) -> None:
    """Read by onnx and by this project's own reader, which must agree."""
    made.graph.initializer.extend([ONE, constant("zero", [0])])
    if any(node.domain == "f" for node in made.graph.node):
        made.functions.append(function("f", [op("Sub", ["a", "a"], "b")]))
    found = risk(made)
    assert (found is None) == harmless, found
    assert risk(model_of(made.SerializeToString())) == found


def test_functions_are_followed() -> None:
    """What a call hands over decides: a number of the caller's, an attribute, its default."""
    body = [op("Div", ["a", "by"], "b"), helper.make_node("Constant", [], ["by"])]
    body[1].attribute.add(name="value_int", type=onnx.AttributeProto.INT, ref_attr_name="size")
    divides = function("d", body[::-1])
    divides.attribute.append("size")
    for size, harmless in ((4, True), (0, False), (-1, False)):
        made = _divided("one", op("d", ["count"], "q2", "f", size=size))
        made.graph.initializer.append(ONE)
        made.functions.append(divides)
        assert (risk(made) is None) == harmless, size
        assert (risk(model_of(made.SerializeToString())) is None) == harmless, size


@pytest.mark.parametrize("op_type", sorted(ops.SCHEMAS))
@pytest.mark.parametrize("k", [0, 1, 2, 33])
def test_own_operators_are_harmless(op_type: str, k: int) -> None:
    """Their bodies divide whole numbers, by constants, attributes and at least 1; but not with a forged attribute."""
    schema = ops.SCHEMAS[op_type]
    attributes = {a.name: 4 if a.name.endswith("_den") else a.least for a in schema.attributes}
    if "k" in attributes:
        attributes["k"] = k
    node = helper.make_node(
        op_type, [value.name for value in schema.inputs], [value.name for value in schema.outputs],
        domain=ops.DOMAIN, overload=ops.variant_key(op_type, attributes), **attributes,
    )  # fmt: skip
    inputs = [
        info("x"),
        *(info(v.name, INT64 if v.types == ("int64",) else FLOAT, None) for v in schema.inputs),
    ]
    made = model([node], inputs=[*{value.name: value for value in inputs}.values()],
                 functions=[ops.function(op_type, attributes)], domains=[ops.DOMAIN])  # fmt: skip
    assert risk(made) is None
    assert risk(model_of(made.SerializeToString())) is None
    for attribute in made.graph.node[-1].attribute:
        if attribute.name == "ratio_den":
            attribute.i = 0
            assert "may be by zero" in str(risk(made))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["integer-Div-by-hidden-zero", "loop-endless", "memory-doubling"])
def test_no_export_of_what_harms(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSMERGE_MAX_SECONDS", "30")
    file = tmp_path / "m.onnx"
    attacks()[name](file)
    with pytest.raises(UnsupportedError, match=r"m\.onnx"):
        api.export(file, output=tmp_path / "out", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.slow
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mutations", "40", "--seed", "7", "--no-attacks"]) == 0
    assert "40 cases, 0 unexpected" in capsys.readouterr().out


def _normalised(in_function: bool) -> onnx.ModelProto:
    """A legal file: the bias of a LayerNormalization is left out by an empty name."""
    scale = constant("scale", np.linspace(1, 2, 8), np.float32)
    body = op("LayerNormalization", ["x", "scale", "b" if in_function else ""], "y", axis=-1)
    nodes, functions, domains = [body], [], [helper.make_opsetid("", 18)]
    if in_function:
        domains.append(helper.make_opsetid("f", 1))
        functions = [helper.make_function("f", "n", ["x", "scale", "b"], ["y"], [body], domains)]
        nodes = [op("n", ["x", "scale", ""], "y", "f")]
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y", FLOAT, None)], [scale])
    return helper.make_model(graph, opset_imports=domains, functions=functions, ir_version=10)


@pytest.mark.parametrize("in_function", [False, True])
def test_a_bias_that_is_left_out_by_an_empty_name(in_function: bool, tmp_path: Path) -> None:
    """ONNX Runtime crashes over it: such a file is opened in a process of its own, and read without the name."""
    file = tmp_path / "m.onnx"
    made = _normalised(in_function)
    onnx.save(made, file)
    assert "empty" in str(risk(made))
    assert risk(model_of(file.read_bytes())) == risk(made)
    read = read_onnx(file)
    assert risk(read) is None
    session = onnxruntime.InferenceSession(read.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    (found,) = session.run(None, {"x": x})
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * np.linspace(1, 2, 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_devices_that_a_file_names_are_left_out(tmp_path: Path) -> None:
    """They are of a newer IR version than this file's, which onnx-ir logs a warning about."""
    made = _normalised(in_function=False)
    made.graph.node[0].device_configurations.add().configuration_id = "two"
    made.configuration.add().name = "two"
    onnx.save(made, tmp_path / "m.onnx")
    read = read_onnx(tmp_path / "m.onnx")
    assert not read.configuration and not read.graph.node[0].device_configurations
