"""The operators for ONNX Runtime's CUDA provider: in a real ONNX Runtime with emulated kernels, and built by nvcc."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.artefacts import bundle
from tests.cases import untouched
from tests.ops.harness import merge_model, native_form, session
from tests.plugins.native import CUDA_SOURCES, methods
from tests.plugins.native import main as main_search
from tests.plugins.wheels import ENTRIES, Installed
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.providers import with_plugin
from tsmerge_export.errors import MissingDependencyError, UsageError
from tsmerge_export.merge import dynamic_merge, local_merge, series_merge

PLAIN = {
    "k": 1,
    "r": 5,
    "ratio_num": 0,
    "ratio_den": 1,
    "min_tokens": 0,
    "protect_first": 0,
    "protect_last": 0,
}
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize("method", methods(native.CUDA_LIBRARY))
def test_equal_the_reference_on_random_problems(
    method: str, emulated_operators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scratch memory, types, streams and DynamicMerge's count included: everything but the card."""
    arguments = ["--plugin", str(emulated_operators), "--method", method, "--cases", "15", "--seed", "100"]
    assert main_search(arguments) == 0, capsys.readouterr().out


def test_padding_that_outweighs_every_token_ties(emulated_operators: Path) -> None:
    """Similarities end at 1, also those of padding, whose norm is not in the scale: the lowest b wins."""
    x = np.array([[[10], [10], [1], [20], [1], [1]]], np.float32)
    size = np.array([[0, 0, 1, 0, 1, 1]], np.float32)
    tokens, sizes = torch.from_numpy(x), torch.from_numpy(size)
    expected = local_merge(tokens, size=sizes, k=None, r=1, similarity="dot")
    model = native_form(merge_model({**PLAIN, "k": 0, "r": 1, "similarity": 2}))
    _, _, kept, target = session(model, plugin=emulated_operators).run(
        None, {"x": x, "metric": x, "size": size}
    )
    np.testing.assert_array_equal(kept, expected.kept)
    np.testing.assert_array_equal(target, expected.target)
    assert target[0, 0] == 0


def test_a_long_row_is_counted_to_its_end(emulated_operators: Path) -> None:
    """More a's than a block has threads: those behind count too."""
    x = np.random.default_rng(5).standard_normal((1, 1201, 3)).astype(np.float32)
    expected = dynamic_merge(torch.from_numpy(x), k=1, threshold=0.5)
    assert 100 < 1201 - expected.y.shape[1] < 500
    names = ("k", "min_tokens", "protect_first", "protect_last")
    settings = {name: PLAIN[name] for name in names} | {"threshold": 0.5}
    run = session(native_form(merge_model(settings, op_type="DynamicMerge")), plugin=emulated_operators)
    _, _, kept, target = run.run(None, {"x": x, "metric": x, "size": np.ones((1, 1201), np.float32)})
    np.testing.assert_array_equal(kept, expected.kept)
    np.testing.assert_array_equal(target, expected.target)


@pytest.mark.parametrize("padding", [0, 1, 100])
def test_rows_of_their_own_lengths_in_blocks(padding: int, emulated_operators: Path) -> None:
    """More a's than a block counts at a time, and padding longer than a warp behind one row."""
    x = np.random.default_rng(6).standard_normal((2, 701, 3)).astype(np.float32)
    size = np.ones(x.shape[:2], np.float32)
    size[0, 699 - padding : 699] = 0
    settings = {"k": 1, "threshold": 0.5, "protect_last": 2}
    expected = series_merge(torch.from_numpy(x), size=torch.from_numpy(size), **settings)
    own = (expected.size > 0).sum(1)
    assert 400 < own[1] < 650
    assert abs(int(own[1] - own[0]) - padding) < 100
    node = {"min_tokens": 0, "protect_first": 0, **settings}
    run = session(native_form(merge_model(node, op_type="SeriesMerge")), plugin=emulated_operators)
    found = run.run(None, {"x": x, "metric": x, "size": size})
    for value, want in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(value, want)
    np.testing.assert_allclose(found[0], expected.y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 3, 12])
def test_nothing_to_merge_is_the_identity(tokens: int, emulated_operators: Path) -> None:
    x, size = untouched(tokens)
    model = native_form(merge_model({**PLAIN, "r": 9, "min_tokens": 50}))
    y, size_out, kept, target = session(model, plugin=emulated_operators).run(
        None, {"x": x, "metric": x, "size": size}
    )
    assert y.tobytes() == x.tobytes()
    assert size_out.tobytes() == size.tobytes()
    assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


def test_sizes_that_do_not_fit_are_an_error(emulated_operators: Path) -> None:
    run = session(native_form(merge_model(PLAIN)), plugin=emulated_operators)
    x = np.zeros((2, 8, 3), np.float32)
    with pytest.raises(Exception, match="differ in B or N"):
        run.run(None, {"x": x, "metric": x, "size": np.ones((2, 7), np.float32)})


def test_nvcc_makes_a_library_that_needs_no_cuda_toolkit(cuda_wheel: Installed) -> None:
    """ONNX Runtime's entry and those of PyTorch, no CUDA library beside it, and the names of both providers."""
    cuda_operators = cuda_wheel.operators
    names = subprocess.run(
        ["nm", "-D", "--defined-only", str(cuda_operators)], capture_output=True, text=True, check=True
    ).stdout
    assert sorted(re.findall(r" \w (\w+)", names)) == ENTRIES["tsmerge-ort-cuda"]
    needed = subprocess.run(["ldd", str(cuda_operators)], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in needed.lower().replace(str(cuda_operators.parent).lower(), "")
    content = cuda_operators.read_bytes()
    assert b"CUDAExecutionProvider" in content
    assert b"CudaPluginExecutionProvider" in content
    assert "TSMERGE_EMULATED" in (CUDA_SOURCES / "operators.cpp").read_text()
    assert b"sm_90" in content


def test_each_provider_has_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert native.for_providers([CPU]) is native.CPU_LIBRARY
    assert native.for_providers([CUDA, CPU]) is native.CUDA_LIBRARY
    assert native.for_providers([CPU, CUDA]) is None
    assert native.for_providers(["TensorrtExecutionProvider", CUDA]) is None
    given = tmp_path / "given.so"
    given.touch()
    monkeypatch.setenv(native.CPU_LIBRARY.variable, str(given))
    assert native.find_library() == given
    assert native.find_library(library=native.CUDA_LIBRARY) is None
    monkeypatch.setenv(native.CUDA_LIBRARY.variable, str(tmp_path / "absent.so"))
    with pytest.raises(MissingDependencyError, match="build plugins/onnxruntime_cuda"):
        native.find_library(library=native.CUDA_LIBRARY)


def test_a_plugin_is_for_cuda_or_the_cpu_in_front() -> None:
    opened = tsm.Bundle.open(bundle("bolt-tiny", tsm.MergeConfig(ratio="1/4")))
    assert with_plugin([CUDA, CPU], opened, "x.so").operators == "x.so"
    with pytest.raises(UsageError, match=f"plugin has no effect unless .* or {CUDA} is the first"):
        with_plugin([CPU, CUDA], opened, "x.so")
