"""Plain export: a size that the exporter froze is found, by symbol and by running at other sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from tests import artefacts
from tsmerge_export.compile.onnx_export import export_component, prove_dynamic
from tsmerge_export.errors import UnsupportedError, VerdictError
from tsmerge_export.families.base import Component, Hints, TensorSpec


class _Stub(Component):
    """One input ``x [batch, length]``, one output; ``forward`` is exported, ``reference`` is the original."""

    name = "stub"
    inputs = (TensorSpec("x", "float32", ("batch", "length")),)
    outputs = (TensorSpec("y", "float32", ("batch", "length")),)
    hints = Hints()

    def __init__(self, forward: Any, reference: Any) -> None:
        self.forward, self.reference = forward, reference

    def module(self, model: nn.Module) -> nn.Module:
        stub = self

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return stub.forward(x)

        return Module()

    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"y": self.reference(inputs["x"])}

    def from_series(self, model: nn.Module, series: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": series}


def test_a_dynamic_export_passes_and_has_named_dims() -> None:
    stub = _Stub(lambda x: x - x.mean(1, keepdim=True), lambda x: x - x.mean(1, keepdim=True))
    model = export_component(stub, nn.Identity())
    prove_dynamic(stub, nn.Identity(), model)
    assert [str(dim) for dim in model.graph.inputs[0].shape or ()] == ["batch", "length"]


def test_a_dim_frozen_in_the_signature_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="stub"):
        export_component(_Stub(lambda x: x.reshape(3, 203), lambda x: x), nn.Identity())


def test_a_size_frozen_inside_the_graph_is_found_by_running() -> None:
    # The dims stay symbolic: only the divisor holds the traced length.
    stub = _Stub(lambda x: x.cumsum(1) / 203.0, lambda x: x.cumsum(1) / x.shape[1])
    model = export_component(stub, nn.Identity())
    with pytest.raises(VerdictError, match=r"batch 1, length 1: output 'y' differs"):
        prove_dynamic(stub, nn.Identity(), model)


def test_a_file_that_does_not_run_at_another_size_is_found() -> None:
    stub = _Stub(lambda x: x + 0.0, lambda x: x)
    model = export_component(stub, nn.Identity())
    add = next(node for node in model.graph)
    fixed = ir.Value(name="fixed", const_value=ir.tensor(np.zeros((3, 203), np.float32)))
    model.graph.register_initializer(fixed)
    add.replace_input_with(len(add.inputs) - 1, fixed)
    with pytest.raises(VerdictError, match="stub"):
        prove_dynamic(stub, nn.Identity(), model)


@pytest.mark.parametrize("opset", [17, 24])
def test_unknown_opsets_are_refused(opset: int) -> None:
    with pytest.raises(UnsupportedError, match="18 to 23"):
        export_component(_Stub(lambda x: x, lambda x: x), nn.Identity(), opset=opset)


@pytest.mark.parametrize("name", ["bolt-tiny", "t5-tiny"])
def test_families_export_dynamic(name: str) -> None:
    prove_dynamic(artefacts.component(name), artefacts.model(name), artefacts.plain(name))


def test_export_leaves_the_original_alone() -> None:
    """Export works on a copy that shares the weights: attention stays what it was, hooks stay on."""
    model: Any = artefacts.model("bolt-tiny")
    component = artefacts.component("bolt-tiny")
    seen = []
    handle = model.encoder.register_forward_hook(lambda *_: seen.append(1))
    try:
        twin: Any = component.module(model)
        assert twin.model.encoder.block[0].layer[0].SelfAttention.q.weight is (
            model.encoder.block[0].layer[0].SelfAttention.q.weight
        )
        with torch.no_grad():
            twin(torch.zeros(1, 20))
        assert seen == []
        with torch.no_grad():
            model(torch.zeros(1, 20))
        assert seen == [1]
    finally:
        handle.remove()
