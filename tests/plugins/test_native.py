"""The native operators of ONNX Runtime against the reference, and a bundle that runs with them and without."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import parser

import tsmerge_export as tsm
from tests.artefacts import bundle
from tests.cases import untouched
from tests.models import tiny_folder
from tests.ops.harness import add_functions, merge_model, native_form, session
from tests.plugins.conftest import Importable
from tests.plugins.emulated import ROOT
from tests.plugins.native import CUDA_SOURCES, PLAIN, SOURCES, build, methods
from tests.plugins.native import main as main_search
from tests.plugins.wheels import Installed
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.cli import main
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError
from tsmerge_export.merge import local_merge
from tsmerge_export.ops import schema
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig


@pytest.mark.parametrize("method", methods(native.CPU_LIBRARY))
@pytest.mark.parametrize("cases", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_equal_the_reference_on_random_problems(
    cases: int, method: str, operators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``python -m tests.plugins.native`` is the longer search."""
    arguments = ["--plugin", str(operators), "--method", method, "--cases", str(cases)]
    assert main_search(arguments) == 0, capsys.readouterr().out


def _merge(
    plugin: Path, x: np.ndarray, size: np.ndarray | None = None, *, threads: int = 1, **settings: int
) -> list[np.ndarray]:
    model = native_form(merge_model({**PLAIN, **settings}))
    sizes = np.ones(x.shape[:2], np.float32) if size is None else size
    return session(model, threads, plugin).run(None, {"x": x, "metric": x, "size": sizes})


@pytest.mark.parametrize("k", [1, 3, 0])
def test_long_rows_in_ranges_and_one_by_one(k: int, operators: Path) -> None:
    """Several ranges a row, taken by threads; many rows at once; the same bits in all of them."""
    x = np.random.default_rng(k).standard_normal((9, 1501, 37)).astype(np.float32)
    expected = local_merge(torch.from_numpy(x), k=k or None, r=400)
    many = _merge(operators, x, threads=3, k=k, r=400)
    np.testing.assert_array_equal(many[2], expected.kept)
    np.testing.assert_array_equal(many[3], expected.target)
    np.testing.assert_array_equal(many[1], expected.size)
    np.testing.assert_allclose(many[0], expected.y, rtol=1e-5, atol=1e-6)
    for threads in (1, 3):
        for whole, one in zip(many, _merge(operators, x[4:5], threads=threads, k=k, r=400), strict=True):
            assert whole[4:5].tobytes() == one.tobytes()


@pytest.mark.parametrize("k", [1, 6, 0])
@pytest.mark.parametrize("tokens", [1, 2, 3, 12])
def test_nothing_to_merge_is_the_identity(tokens: int, k: int, operators: Path) -> None:
    x, size = untouched(tokens)
    y, size_out, kept, target = _merge(operators, x, size, k=k, r=9, min_tokens=50)
    assert y.tobytes() == x.tobytes()
    assert size_out.tobytes() == size.tobytes()
    assert kept.tolist() == target.tolist() == [list(range(tokens))] * 2


@pytest.mark.parametrize("similarity", [0, 1, 2])
def test_rotations_of_one_vector_tie(similarity: int, operators: Path) -> None:
    """Their norms and products are equal but for the order of sums: the lowest indices merge, by any similarity."""
    vector = np.random.default_rng(2).standard_normal(61).astype(np.float32)
    x = np.stack([np.roll(vector, turn) for turn in range(40) for _ in range(2)])[None]
    _, _, kept, _ = _merge(operators, x, k=1, r=7, similarity=similarity)
    assert sorted(set(range(80)) - set(kept[0].tolist())) == list(range(0, 14, 2))


def test_sizes_add_in_the_order_of_the_tokens(operators: Path) -> None:
    """Sizes that no float adds exactly: many into one, some of them before it and some behind."""
    rng = np.random.default_rng(3)
    x = np.repeat(rng.standard_normal((4, 10, 5)), 12, axis=1).astype(np.float32)
    size = rng.random((4, 120)).astype(np.float32)
    for k in (4, 0):
        expected = local_merge(torch.from_numpy(x), size=torch.from_numpy(size), k=k or None, r=50)
        _, size_out, _, target = _merge(operators, x, size, k=k, r=50)
        np.testing.assert_array_equal(target, expected.target)
        np.testing.assert_array_equal(size_out, expected.size)


def _mixed(x: str, metric: str) -> onnx.ModelProto:
    """A model whose tokens and metric differ in type; both come and go as float32."""
    types = {name: getattr(onnx.TensorProto, name.upper()) for name in ("float", "float16", "bfloat16")}
    settings = ", ".join(f"{name} = {value}" for name, value in {**PLAIN, "r": 7}.items())
    return parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>
        g (float[B, N, D] x, float[B, N, Dm] metric, float[B, N] size)
            => (float[B, M, D] y, float[B, M] s, int64[B, M] kept, int64[B, N] target)
        {{
            x_in = Cast<to = {types[x]}>(x)
            metric_in = Cast<to = {types[metric]}>(metric)
            y_out, s, kept, target = tsmerge.LocalMerge<{settings}>(x_in, metric_in, size)
            y = Cast<to = 1>(y_out)
        }}""")


@pytest.mark.parametrize("x", ["float", "float16", "bfloat16"])
@pytest.mark.parametrize("metric", ["float", "float16", "bfloat16"])
def test_tokens_and_metric_may_differ_in_type(x: str, metric: str, operators: Path) -> None:
    rng = np.random.default_rng(1)
    feed = {
        "x": rng.standard_normal((2, 30, 16)).astype(np.float32),
        "metric": rng.standard_normal((2, 30, 8)).astype(np.float32),
        "size": np.ones((2, 30), np.float32),
    }
    names = {"float": "float32"}
    dtypes = {name: getattr(torch, names.get(name, name)) for name in (x, metric)}
    expected = local_merge(
        torch.from_numpy(feed["x"]).to(dtypes[x]), torch.from_numpy(feed["metric"]).to(dtypes[metric]), r=7
    )
    y, size, kept, target = session(_mixed(x, metric), plugin=operators).run(None, feed)
    np.testing.assert_array_equal(kept, expected.kept)
    np.testing.assert_array_equal(target, expected.target)
    np.testing.assert_array_equal(size, expected.size)
    step = float(torch.finfo(dtypes[x]).eps)
    np.testing.assert_allclose(y, expected.y.float(), rtol=step, atol=step)


def _run_types(model: onnx.ModelProto, plugin: Path | None, folder: Path) -> set[str]:
    """The operators that ONNX Runtime ran, from its profile."""
    run = session(model, plugin=plugin, enable_profiling=True, profile_file_prefix=str(folder / "profile"))
    x = np.random.default_rng(0).standard_normal((1, 20, 4)).astype(np.float32)
    run.run(None, {"x": x, "metric": x, "size": np.ones((1, 20), np.float32)})
    events = json.loads(Path(run.end_profiling()).read_text())
    return {event["args"]["op_name"] for event in events if event.get("cat") == "Node"}


def test_a_file_with_functions_runs_either_way(operators: Path, tmp_path: Path) -> None:
    """The library wins over the functions; operators that it does not have keep theirs."""
    model = merge_model({**PLAIN, "r": 5})
    node = model.graph.node.add(op_type="Unmerge", domain="tsmerge", input=["y", "target"], output=["z"])
    assert node.op_type == "Unmerge"
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["B", "N", "D"])
    )
    del model.functions[:]
    add_functions(model)
    with_library, without = (_run_types(model, plugin, tmp_path) for plugin in (operators, None))
    assert "LocalMerge" in with_library
    assert "TopK" not in with_library
    assert "LocalMerge" not in without
    assert "TopK" in without
    assert "GatherND" in with_library & without  # Unmerge


def test_sizes_that_do_not_fit_are_an_error(operators: Path) -> None:
    run = session(native_form(merge_model({**PLAIN, "r": 5})), plugin=operators)
    x = np.zeros((2, 8, 3), np.float32)
    with pytest.raises(Exception, match="differ in B or N"):
        run.run(None, {"x": x, "metric": x, "size": np.ones((2, 7), np.float32)})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"r": -1}, "r = -1 must be from 0 to 1000000000"),
        ({"ratio_den": 0}, "ratio_den = 0 must be from 1"),
        ({"ratio_num": 2, "ratio_den": 3}, "at most 1/2"),
        ({"r": 1, "ratio_num": 1, "ratio_den": 3}, "excludes r"),
        ({"causal": 1}, "causal needs k = 1 and protect_first >= 1"),
        ({"k": 2, "causal": 1, "protect_first": 1}, "causal needs k = 1"),
        ({"similarity": 3}, "similarity = 3"),
    ],
)
def test_attributes_out_of_range_are_an_error(settings: dict[str, int], why: str, operators: Path) -> None:
    model = native_form(merge_model({**PLAIN, "r": 5}))
    del model.graph.node[2].attribute[:]
    for name, value in {**PLAIN, **settings}.items():
        model.graph.node[2].attribute.append(onnx.helper.make_attribute(name, value))
    with pytest.raises(Exception, match=re.escape(why)):
        session(model, plugin=operators)


def test_a_missing_attribute_is_an_error(operators: Path) -> None:
    model = native_form(merge_model({**PLAIN, "r": 5}))
    del model.graph.node[2].attribute[0]
    with pytest.raises(Exception, match="attribute k is missing"):
        session(model, plugin=operators)


def test_attributes_are_those_of_the_operators() -> None:
    """What both libraries read, and from where to where they take similarities, against the schema."""
    source = "".join(
        (folder / name).read_text()
        for folder, name in (
            (SOURCES, "attributes.h"), (SOURCES, "amounts.h"), (SOURCES, "operators.cpp"),
            (CUDA_SOURCES, "operators.cpp"), (CUDA_SOURCES, "merges.h"), (CUDA_SOURCES, "linked.h"),
            (CUDA_SOURCES, "gathers.h"),
        )
    )  # fmt: skip
    numbers = {name: int(value) for name, value in re.findall(r"constexpr int64_t (\w+) = (\d+);", source)}
    read = {
        (name, int(least), numbers.get(most) or int(most), bool(optional))
        for name, least, most, optional in re.findall(
            r'integer\(info, "(\w+)", (\d+), (\w+)(, true)?\)', source
        )
    }
    operators = native.CPU_LIBRARY.operators + native.CUDA_LIBRARY.operators
    declared = {a for name in operators for a in schema(name).attributes}
    assert read == {(a.name, a.least, a.most, a.optional) for a in declared if not a.real}
    reals = {
        (name, int(least), int(most))
        for name, least, most in re.findall(r'real\([\w:{}]+, "(\w+)", (-?\d+), (\d+)\)', source)
    }
    assert reals == {(a.name, a.least, a.most) for a in declared if a.real}
    names = re.findall(r'add(?:One)?\(domain, \w+, "(\w+)", \w+', source)
    assert sorted(names) == sorted(operators)


_SANITIZED = """
import sys
from tests.ops import harness
from tests.plugins import native
plain = harness.session
# Memory of its own for every tensor, or the sanitizer could not see where one ends.
apart = {"enable_cpu_mem_arena": False, "enable_mem_pattern": False}
harness.session = lambda *given, **options: plain(*given, **apart, **options)
sys.exit(native.main(["--plugin", sys.argv[1], "--cases", "26", "--seed", "7000"]))
"""


def test_sanitizers_find_nothing(cxx: str, ort_headers: Path, tmp_path: Path) -> None:
    flags = "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -DTSMERGE_ONE_TARGET"
    library = build(tmp_path, ort_headers, flags, SOURCES, "-DCMAKE_BUILD_TYPE=None")  # else it adds -O3
    runtime = subprocess.run([cxx, "-print-file-name=libasan.so"], capture_output=True, text=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONPATH": str(ROOT.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", _SANITIZED, str(library)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "cases per method equal" in done.stdout


def test_a_broken_operator_is_found(ort_headers: Path) -> None:
    """One of the mutants of ``plugins/tools/mutate.py``; the script tries every rule."""
    command = ["plugins/tools/mutate.py", "--only", "native: ties of b: highest j", "--cases", "150"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 mutants, 0 survived" in done.stdout


MERGE = MergeConfig(ratio="1/4")


def test_a_bundle_runs_with_the_library(operators: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or by the environment; the same forecasts either way."""
    folder = bundle("bolt-nano", MERGE)
    context = np.random.default_rng(0).standard_normal((3, 200)).cumsum(1).astype(np.float32)
    plain = tsm.load(folder)
    expected = plain.run({"context": context})
    loaded: list[str] = []
    register = native.register

    def seen(options: Any, given: Any = None, *providers: Any) -> None:
        register(options, given, *providers)
        loaded.append(str(native.find_library(given)))

    monkeypatch.setattr(native, "register", seen)
    given = tsm.load(folder, plugin=operators)
    monkeypatch.setenv(native.VARIABLE, str(operators))
    forecasts = [given.run({"context": context}), tsm.load(folder).run({"context": context})]
    assert loaded == [str(operators)] * 2
    for found in forecasts:
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6 * np.abs(values).max())
    quantiles = tsm.pipeline(folder).predict(context)
    monkeypatch.delenv(native.VARIABLE)
    np.testing.assert_array_equal(quantiles, tsm.pipeline(folder, plugin=operators).predict(context))
    assert loaded[2:] == [str(operators)] * 2


def test_a_model_that_merges_per_series_forecasts_the_same(operators: Path) -> None:
    """Several layers, whose rows begin with padding and come to end in it; and a row is what it is alone."""
    file = bundle("bolt-nano", MergeConfig("dynamic", threshold=0.6, per_series=True)) / "model.onnx"
    context = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    context[1:] = context[1:].cumsum(1)
    context[2, :120] = np.nan
    run = session(native_form(onnx.load(file)), plugin=operators)
    (want,) = session(onnx.load(file)).run(["quantiles"], {"context": context})
    (found,) = run.run(["quantiles"], {"context": context})
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-6 * np.abs(want).max())
    (alone,) = run.run(["quantiles"], {"context": context[2:3]})
    np.testing.assert_allclose(found[2:3], alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def _export(folder: Path, output: Path) -> int:
    return main(["export", str(folder), "--merge", "local", "--ratio", "1/4", "-o", str(output)])


def test_export_proves_the_native_operators_where_they_are_named(
    operators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(native.VARIABLE, str(operators))
    assert _export(tiny_folder(tmp_path / "model"), tmp_path / "out") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["verdicts"]["parity"]["passed"]
    assert manifest["versions"]["native operators"].startswith("libtsmerge_ort.so, SHA-256 ")
    again = dict(commands(json.loads((tmp_path / "out" / "report.json").read_text())))
    assert again["native operators"] == f"export TSMERGE_ORT_PLUGIN={operators}"
    assert "native" not in again["the versions"]


def test_a_wrong_library_fails_parity(
    ort_headers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is proved is what runs: a library that merges the worst pairs is found out."""
    shutil.copytree(ROOT, tmp_path / "plugins")
    sources = tmp_path / "plugins" / SOURCES.name
    place = sources / "place.cpp"
    place.write_text(place.read_text().replace("std::greater<>()", "std::less<>()"))
    library = build(tmp_path / "build", ort_headers, sources=sources)
    monkeypatch.setenv(native.VARIABLE, str(library))
    assert _export(tiny_folder(tmp_path / "model"), tmp_path / "out") == 1
    assert "parity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--inline"], ["--runtime", "tensorrt"], ["--runtime", "tensorrt-rtx"]])
def test_the_library_does_not_stand_in_for_other_forms(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parity would run native operators in place of the bodies that it is about."""
    monkeypatch.setenv(native.VARIABLE, "libtsmerge_ort.so")
    given = ["export", str(tiny_folder(tmp_path / "model")), "--merge", "local", "-o", str(tmp_path / "out")]
    assert main([*given, *flags]) == 2
    assert f"{native.VARIABLE} has no effect with {' '.join(flags)}" in capsys.readouterr().err


def test_nor_when_an_inlined_bundle_is_validated(
    wheel: Installed,
    importable: Importable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One that is installed, and not named, the export leaves aside and does not name either."""
    model = tiny_folder(tmp_path / "model")
    output = tmp_path / "out"
    importable(wheel.site)
    assert main(["export", str(model), "--merge", "local", "--inline", "-o", str(output)]) == 0
    assert "native operators" not in json.loads((output / "manifest.json").read_text())["versions"]
    monkeypatch.setenv(native.VARIABLE, str(wheel.operators))
    assert main(["validate", str(output), str(model)]) == 2
    assert "no effect with an inlined bundle" in capsys.readouterr().err


def test_share_of_merging_counts_the_native_operator(
    operators: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = bundle("bolt-nano", MERGE)
    context = np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32)
    monkeypatch.setenv(native.VARIABLE, str(operators))
    share = merge_share(folder / "model.onnx", {"context": context}, 1)
    assert share is not None
    assert 0 < share < 1


def test_errors(operators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle("bolt-nano", MERGE)
    none = tmp_path / "none.so"
    with pytest.raises(MissingDependencyError, match="does not exist; build plugins/onnxruntime"):
        tsm.load(folder, plugin=none)
    other = tmp_path / "other.so"
    other.write_bytes(b"no library")
    with pytest.raises(UnsupportedError, match="ONNX Runtime cannot load it") as caught:
        tsm.load(folder, plugin=other)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="plugin has no effect unless"):
        tsm.load(folder, plugin=operators, providers=["CPUExecutionProvider", "CUDAExecutionProvider"])
    with pytest.raises(MissingDependencyError):
        tsm.load(
            folder,
            plugin=none,
            providers=[("CPUExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})],
        )
    monkeypatch.setenv(native.VARIABLE, str(none))
    with pytest.raises(MissingDependencyError):
        GraphSession(folder / "model.onnx")
