"""What the exporter notes of dims is no need: left out, it is measured, and the merged graph is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.families.harness import Subject
from tests.models import BOLT
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.known_dims import fill_dims
from tsmerge_export.rewrite.dims import dims
from tsmerge_export.settings.config import MergeConfig

MERGE = MergeConfig(ratio="1/4", prop_attn=True)
FLOAT = ir.DataType.FLOAT
SUBJECTS = {"bolt": Subject("chronos-bolt"), "t5": Subject("chronos-t5")}


def no_note(value: ir.Value) -> None:
    value.shape, value.type = None, None


def no_symbols(value: ir.Value) -> None:
    value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in dims(value) or []])


def no_key_side(value: ir.Value) -> None:
    """As transformers 5.17 wrote it: no axis of the keys is told, anywhere."""
    found = dims(value) or []
    if len(found) == 4:
        value.shape = ir.Shape([found[0], found[1], found[2], None])


def stripped(model: ir.Model, how: Any) -> ir.Model:
    copy = model.clone()
    ends = set(copy.graph.outputs)
    for node in copy.graph:
        for value in node.outputs:
            if value not in ends and value.shape is not None:
                how(value)
    return copy


@pytest.mark.parametrize("how", [no_note, no_symbols, no_key_side])
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_graph_without_symbols_merges_as_with_them(name: str, how: Any, tmp_path: Path) -> None:
    subject = SUBJECTS[name]
    component, model = subject.component, subject.model
    plain = stripped(subject.plain, how)
    fill_dims(plain, component, model)
    built = merge_and_lower(component, plain, MERGE, inline=False, folder=tmp_path, scratch=tmp_path)
    assert [merge.layer for merge in built.report.merges] == [0, 1]
    assert not built.report.barriers
    # The same file but for what was noted; that this one is right is proved for each family against eager PyTorch.
    got, want = open_session(built.merged), open_session(subject.built(MERGE).merged)
    outputs = [spec.name for spec in component.outputs]
    for batch, length in ((1, 90), (3, 124), (2, 700)):
        feed = component.example(model, batch, length, seed=length)
        for one, other in zip(got.run(outputs, feed), want.run(outputs, feed), strict=True):
            np.testing.assert_array_equal(one, other)


def test_measured_dims_have_the_names_that_the_exporter_gives() -> None:
    subject = SUBJECTS["bolt"]
    noted = {value.name: dims(value) for node in subject.plain.graph for value in node.outputs}
    plain = stripped(subject.plain, no_key_side)
    fill_dims(plain, subject.component, subject.model)
    assert {value.name: dims(value) for node in plain.graph for value in node.outputs} == noted


def test_a_name_that_holds_below_the_context_only_is_told_from_the_other() -> None:
    """Up to a context of 1,024, beyond the usual sizes, ``length`` and ``Min(1024, length)`` are one number."""
    config = BOLT | {"chronos_config": BOLT["chronos_config"] | {"context_length": 1024}}
    subject = Subject("chronos-bolt", config)
    cut = ir.Value(name="cut", shape=ir.Shape(["batch", "Min(1024, length)"]), type=ir.TensorType(FLOAT))
    whole = ir.Value(name="whole", shape=ir.Shape([None, None]), type=ir.TensorType(FLOAT))
    source = ir.Value(name="context", shape=ir.Shape(["batch", "length"]), type=ir.TensorType(FLOAT))
    slices = [
        ir.Value(name=f"number_{number}", const_value=ir.tensor(np.array([number])))
        for number in (-1024, 2**60, 1)
    ]
    start, end, axis = slices
    nodes = [
        ir.node("Slice", [source, start, end, axis], outputs=[cut]),
        ir.node("Identity", [cut], outputs=[whole]),
    ]
    graph = ir.Graph([source], [whole], nodes=nodes, initializers=slices, opset_imports={"": 18}, name="cut")
    fill_dims(ir.Model(graph, ir_version=10), subject.component, subject.model)
    assert dims(whole) == ["batch", "Min(1024, length)"]
