"""What merging makes is linear in the tokens: the shapes of all its values, from the profile of a real run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.rewrite.encoders import Encoder, export
from tests.rewrite.merged_encoders import inputs
from tsmerge_export.backends.onnxruntime.portable import to_portable
from tsmerge_export.backends.onnxruntime.profile import largest_merge_value
from tsmerge_export.onnx_model.weights import write_model
from tsmerge_export.rewrite.merge_graph import merge_graph
from tsmerge_export.settings.config import MergeConfig

WIDTH = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(1)
    plain, folder = export(Encoder("rope", width=WIDTH, layers=2).eval()), tmp_path_factory.mktemp("files")
    write_model(to_portable(plain.clone()), folder / "none.onnx")
    found = {"none": folder / "none.onnx"}
    for name, k in (("k1", 1), ("k8", 8), ("global", "global")):
        merge = MergeConfig(k=k, ratio="1/4")
        model, _ = merge_graph(plain.clone(), merge, token_mask="token_mask")
        write_model(to_portable(model), folder / f"{name}.onnx")
        found[name] = folder / f"{name}.onnx"
    return found


@pytest.mark.parametrize(("name", "copies"), [("k1", 2), ("k8", 8)])
def test_no_value_of_merging_grows_faster_than_the_tokens(
    name: str, copies: int, files: dict[str, Path]
) -> None:
    sizes = {n: math.prod(largest_merge_value(files[name], inputs(1, n))[1]) for n in (1024, 2048)}
    assert 0 < sizes[1024] <= copies * 1024 * WIDTH
    assert sizes[2048] == 2 * sizes[1024]


def test_the_check_sees_what_is_quadratic(files: dict[str, Path]) -> None:
    op_type, shape = largest_merge_value(files["global"], inputs(1, 1024))
    assert op_type
    assert math.prod(shape) >= 512 * 512
    assert largest_merge_value(files["none"], inputs(1, 64)) == ("", [])
