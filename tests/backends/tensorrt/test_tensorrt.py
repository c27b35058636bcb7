"""TensorRT as far as a machine without it goes: preflight, engines by a stand-in, provider options."""

from __future__ import annotations

import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.models import tiny
from tests.report.html.reading import part, read
from tsmerge_export.backends.onnxruntime import providers
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.backends.target import Target
from tsmerge_export.backends.tensorrt import engine as tensorrt
from tsmerge_export.backends.tensorrt.backend import TensorRT
from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import MissingDependencyError, UsageError, VerdictError
from tsmerge_export.settings.config import MergeConfig

MERGE = MergeConfig(ratio="1/4")
FEED = {"context": np.random.default_rng(0).standard_normal((2, 128)).cumsum(1).astype(np.float32)}


class _Network:
    """What the stand-in builds an engine from: the portable file beside the plugin form."""

    def __init__(self, path: str, strongly_typed: bool) -> None:
        assert strongly_typed
        self.portable = Path(path.replace(".trt.onnx", ".onnx"))


class _Runner:
    scale = 1.0  # of outputs; another one is a wrong engine

    def __init__(self, engine: bytes) -> None:
        self.session = GraphSession(Path(engine.decode()))

    def activate(self) -> None:
        pass

    def deactivate(self) -> None:
        pass

    def infer(self, feed: dict[str, Any], copy_outputs_to_host: bool) -> dict[str, Any]:
        return {name: value * self.scale for name, value in self.session.run(feed).items()}


class _Profile(dict[str, Any]):
    def add(self, name: str, min: Any, opt: Any, max: Any) -> None:
        self[name] = (min, opt, max)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polygraphy and TensorRT whose engines are the portable files in ONNX Runtime."""
    backend = types.SimpleNamespace(
        Profile=_Profile,
        NetworkFromOnnxPath=_Network,
        CreateConfig=lambda profiles: profiles,
        EngineFromNetwork=lambda network, config: network,
        SaveEngine=lambda network, path: lambda: Path(path).write_text(str(network.portable)),
        EngineFromBytes=lambda content: content,
        TrtRunner=_Runner,
    )
    common = types.SimpleNamespace(BytesFromPath=lambda path: Path(path).read_bytes())
    for name, module in {"polygraphy.backend.trt": backend, "polygraphy.backend.common": common}.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(tensorrt, "preflight", lambda plugin: [])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle for TensorRT, made on a machine without it."""
    pytest.importorskip("onnx_graphsurgeon", reason="no onnx-graphsurgeon (pip install onnx-graphsurgeon)")
    model = tiny("chronos-bolt").eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(tensorrt.PLUGIN_VARIABLE, raising=False)
        return tsm.export(
            model, MERGE, output=tmp_path_factory.mktemp("trt") / "b", target=Target("tensorrt")
        )


def test_bundle_without_tensorrt_says_what_is_missing(bundle: Bundle) -> None:
    entry = bundle.manifest["target"]["components"]["model"]
    assert entry["parity"]["passed"]
    assert bundle.file("model.trt.onnx").is_file()
    assert any("no plugin library; build plugins/local_merge" in line for line in entry["missing"])
    assert "engine" not in entry
    compile(bundle.file("build_engine.py").read_text(), "build_engine.py", "exec")
    card = (bundle.path / "README.md").read_text()
    assert "trtexec --onnx=model.trt.onnx --stronglyTyped --dynamicPlugins=libtsmerge_trt.so" in card
    page = read((bundle.path / "report.html").read_text())
    assert part(page, "target").one("p", class_="note").text == TensorRT.on_gpu
    assert "trtexec --onnx=model.trt.onnx --stronglyTyped" in part(page, "target").text
    assert "no plugin library" in part(page, "target").text
    assert bundle.report["run"]["target"] == ["--runtime", "tensorrt", "--dtype", "fp32"]
    with pytest.raises(MissingDependencyError, match=r"TensorRT cannot be used here: .*plugin library"):
        tsm.load(bundle.path, runtime="tensorrt")


def test_commands_have_flags_that_polygraphy_knows(bundle: Bundle) -> None:
    tool = Path(sys.executable).with_name("polygraphy")
    if not tool.is_file():
        pytest.skip("no polygraphy (pip install polygraphy)")
    known = subprocess.run([tool, "convert", "--help"], capture_output=True, text=True).stdout
    command = bundle.manifest["target"]["components"]["model"]["commands"]["polygraphy"]
    flags = [word for word in command.split() if word.startswith("--")]
    assert len(flags) == 6
    assert not [flag for flag in flags if flag not in known]


def test_library_is_looked_at_before_tensorrt_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(tensorrt.PLUGIN_VARIABLE, raising=False)
    assert tensorrt.find_plugin() is None
    assert tensorrt.find_plugin("a.so") == Path("a.so")
    absent = tmp_path / "absent.so"
    assert f"the plugin library {absent} does not exist" in tensorrt.preflight(absent)
    text = tmp_path / "text.so"
    text.write_text("no library")
    assert any("cannot be loaded" in line for line in tensorrt.preflight(text))
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    for source, says in (
        ("int other;", "has no symbol getCreators"),
        (
            "int getCreators; int tsmergeTensorRTMajor(void) { return 9; }",
            "is built for TensorRT 9, 10 is installed",
        ),
        ("int getCreators; int tsmergeTensorRTMajor(void) { return 10; }", "finds no LocalMerge version 1"),
    ):
        (tmp_path / "made.c").write_text(source)
        made = tmp_path / f"made{len(says)}.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", made, tmp_path / "made.c"], check=True)
        registry = types.SimpleNamespace(get_creator=lambda *_: None, load_library=lambda path: None)
        module = types.SimpleNamespace(
            __version__="10.14.1", get_plugin_registry=lambda registry=registry: registry
        )
        monkeypatch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
        assert any(says in line for line in tensorrt.preflight(made)), says


def test_engine_is_built_proved_and_loaded(stand_in: None, tmp_path: Path) -> None:
    model = tiny("chronos-bolt").eval()
    made = tsm.export(model, MERGE, output=tmp_path / "b", target=Target("tensorrt"))
    entry = made.manifest["target"]["components"]["model"]
    assert entry["missing"] == []
    assert entry["engine_parity"]["passed"]
    assert entry["engine_parity"]["rows"] > 20
    # The stand-in's engine names a file of the temporary folder: let it name the final one.
    content = made.file("model.onnx")
    session = tensorrt.TensorrtSession.__new__(tensorrt.TensorrtSession)
    (tmp_path / "engine").write_text(str(content))
    spec = made.components[0]
    session._sessions = {
        "model": tensorrt.EngineSession(tmp_path / "engine", spec.inputs, spec.outputs, None)
    }
    found, want = session.run(FEED), tsm.load(made.path).run(FEED)
    np.testing.assert_array_equal(found["quantiles"], want["quantiles"])
    with pytest.raises(UsageError, match="context"):
        session.run({"context": np.zeros((2, 3, 4), np.float32)})


def test_an_engine_that_computes_something_else_is_no_bundle(
    stand_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Runner, "scale", 1.01)
    with pytest.raises(VerdictError, match="parity in tensorrt failed"):
        tsm.export(tiny("chronos-bolt").eval(), MERGE, output=tmp_path / "b", target=Target("tensorrt"))
    assert not (tmp_path / "b").exists()


def test_provider_gets_the_plugin_form_and_its_options(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(providers.VARIABLE, raising=False)
    library = tmp_path / providers.REGISTERED
    library.write_text("")
    rest = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    chosen = providers.with_plugin([(providers.TENSORRT, {"trt_fp16_enable": False}), *rest], bundle, library)
    assert chosen.files == {"model": bundle.file("model.trt.onnx")}
    (name, options), *others = chosen.providers  # type: ignore[misc]
    assert (name, others) == (providers.TENSORRT, rest)
    assert options["trt_extra_plugin_lib_paths"] == str(library)
    assert options["trt_fp16_enable"] is False
    assert options["trt_profile_max_shapes"] == "context:8x256"
    for given in ([providers.TENSORRT], providers.TENSORRT):
        assert providers.with_plugin(given, bundle).files == {}
        monkeypatch.setenv(providers.VARIABLE, str(library))
        assert providers.with_plugin(given, bundle).files
        monkeypatch.delenv(providers.VARIABLE)
    with pytest.raises(UsageError, match="plugin has no effect"):
        providers.with_plugin(["CPUExecutionProvider", "CUDAExecutionProvider"], bundle, library)
    with pytest.raises(MissingDependencyError, match="does not exist"):
        providers.with_plugin([providers.TENSORRT], bundle, tmp_path / "none.so")
    with pytest.raises(MissingDependencyError, match="TensorrtExecutionProvider is not in this ONNX Runtime"):
        tsm.load(bundle.path, providers=[providers.TENSORRT], plugin=library)
