"""Forms for TensorRT: bodies with static shapes, plugin nodes, precision."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.artefacts import built, component, model
from tests.cases import Case, random_case
from tests.ops.harness import difference, feed, merge_model, session
from tsmerge_export import ops
from tsmerge_export.backends.engines.lower import set_precision
from tsmerge_export.backends.static_functions import static_functions
from tsmerge_export.backends.tensorrt.names import PLUGIN_DOMAIN
from tsmerge_export.backends.tensorrt.plugin_form import plugin_form
from tsmerge_export.backends.tensorrt_rtx.form import standard_form
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig

MERGES = (MergeConfig(ratio="1/4"), MergeConfig(method="global", ratio="1/4"))


@lru_cache(maxsize=512)
def _session(attributes: tuple[tuple[str, int | float], ...], dtype: str) -> ort.InferenceSession:
    return session(static_functions(merge_model(dict(attributes), dtype), merge=True))


def test_static_body_equals_reference() -> None:
    """For k other than 1 without NaN and infinities, which there spread over their row."""
    compared = 0
    for seed in range(400):
        case: Case = random_case(np.random.default_rng(seed), tokens=80)
        if case.settings["k"] != 1 and case.spoil not in ("none", "zero"):
            continue
        run = _session(tuple(sorted(case.attributes.items())), case.dtype)
        y, size, kept, target = run.run(None, feed(case))
        found = difference(case, (y.astype(np.float32), size, kept, target))
        assert found in (None, "flip"), f"seed {seed}: {found}"
        compared += found is None
    assert compared > 150


def test_static_bodies_have_no_operator_that_tensorrt_lacks() -> None:
    for k in (1, 2, 0):
        attributes = {"k": k, "r": 3, "ratio_num": 0, "ratio_den": 1, "min_tokens": 0, "protect_first": 0}
        made = standard_form(static_functions(merge_model({**attributes, "protect_last": 0}), merge=True))
        kinds = {node.op_type for node in made.graph.node}
        assert not kinds & {"NonZero", "If", "Loop", "Unique", "Compress"}
        assert not [a for node in made.graph.node for a in node.attribute if a.name == "reduction"]
        assert not made.functions
        assert {entry.domain for entry in made.opset_import} == {""}


def _run(proto: onnx.ModelProto, name: str) -> list[np.ndarray]:
    inputs = component(name).example(model(name), 3, 101, seed=4)
    return session(proto).run(None, inputs)


@pytest.mark.parametrize("merge", MERGES, ids=lambda merge: merge.method)
@pytest.mark.parametrize("name", ["bolt-tiny", "t5-tiny"])
def test_forms_of_a_model_compute_the_same(name: str, merge: MergeConfig) -> None:
    portable = onnx.load(built(name, merge).merged)
    expected = _run(portable, name)
    standard = standard_form(static_functions(portable, merge=True))
    for want, found in zip(expected, _run(standard, name), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=5e-5 * float(np.abs(want).max()))

    plugin = plugin_form(static_functions(portable, merge=False))
    nodes = [node for node in plugin.graph.node if node.domain == PLUGIN_DOMAIN]
    merges = [node for node in portable.graph.node if node.op_type == "LocalMerge"]
    assert len(nodes) == len(merges) > 0
    assert not plugin.functions
    assert {node.domain for node in plugin.graph.node} == {"", PLUGIN_DOMAIN}
    for node, of in zip(nodes, merges, strict=True):
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert given.pop("plugin_version") == b"1"
        assert given.pop("plugin_namespace") == b""
        assert given == ops.attributes_of(of)
    # The plugin by its function: the graph around it is the same.
    for node, of in zip(nodes, merges, strict=True):
        node.domain, node.overload = ops.DOMAIN, of.overload
        del node.attribute[:]
        node.attribute.extend(of.attribute)
    plugin.functions.extend(f for f in portable.functions if f.name == "LocalMerge")
    plugin.opset_import.append(onnx.helper.make_opsetid(ops.DOMAIN, ops.VERSION))
    plugin.ir_version = max(plugin.ir_version, ops.MIN_IR_VERSION)
    for want, found in zip(expected, _run(plugin, name), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5 * float(np.abs(want).max()))


def test_shapes_of_the_plugin_form_can_be_inferred() -> None:
    plugin = plugin_form(static_functions(onnx.load(built("bolt-tiny", MERGES[0]).merged), merge=False))
    inferred = onnx.shape_inference.infer_shapes(plugin, check_type=True)
    known = {
        value.name: value.type.tensor_type for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    outputs = [name for node in plugin.graph.node for name in node.output if name]
    missing = [name for name in outputs if name not in known or not known[name].HasField("shape")]
    assert not missing
    merged = next(node for node in plugin.graph.node if node.domain == PLUGIN_DOMAIN)
    batch, tokens, features = known[merged.output[0]].shape.dim
    assert batch.dim_param
    assert tokens.dim_param
    assert features.dim_value == 16
    assert [known[name].elem_type for name in merged.output] == [1, 1, 7, 7]


@pytest.mark.parametrize(
    ("dtype", "element"), [("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)]
)
def test_precision_is_that_of_the_products(dtype: str, element: int) -> None:
    portable = onnx.load(built("t5-tiny", MERGES[0]).merged)
    precise = set_precision(portable, dtype)
    assert set_precision(portable, "fp32") == portable
    inferred = onnx.shape_inference.infer_shapes(precise)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in precise.graph.initializer}
    products = [node for node in precise.graph.node if node.op_type == "MatMul"]
    assert products
    for node in products:
        assert {types[name] for name in (*node.input, *node.output)} == {element}
    for node in precise.graph.node:
        if node.op_type in ("Softmax", "ReduceMean", "LocalMerge"):
            assert types[node.input[0]] == onnx.TensorProto.FLOAT
    assert sum(len(t.raw_data) for t in precise.graph.initializer) < sum(
        len(t.raw_data) for t in portable.graph.initializer
    )
    plugin = plugin_form(static_functions(precise, merge=False))
    stored = {tensor.data_type for tensor in plugin.graph.initializer}
    assert element in stored


def test_half_precision_is_close_and_not_equal() -> None:
    portable = onnx.load(built("bolt-tiny", MergeConfig(method="none")).merged)
    (want,), (found,) = (_run(set_precision(portable, dtype), "bolt-tiny") for dtype in ("fp32", "fp16"))
    error = float(np.abs(found - want).max() / np.abs(want).max())
    assert 0 < error < 1e-2


def test_weights_beyond_half_precision_are_refused() -> None:
    portable = onnx.load(built("bolt-tiny", MergeConfig(method="none")).merged)
    product = next(n for n in portable.graph.node if n.op_type == "MatMul")
    weight = next(t for t in portable.graph.initializer if t.name in product.input)
    values = onnx.numpy_helper.to_array(weight) * 0 + 1e6
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
    with pytest.raises(UnsupportedError, match="beyond the range of --dtype fp16"):
        set_precision(portable, "fp16")


@pytest.mark.parametrize("method", ["dynamic", "pitome"])
def test_methods_without_a_form_are_refused(method: str) -> None:
    portable = onnx.load(built("bolt-tiny", MergeConfig(method=method)).merged)
    with pytest.raises(UnsupportedError, match=r"use --merge local or global"):
        static_functions(portable, merge=True)
