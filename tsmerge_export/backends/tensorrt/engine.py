"""TensorRT proper, by way of Polygraphy: what must be there (preflight), building engines, running them.

Nothing in this file that needs a GPU has ever run on one.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.arrays import prepare
from tsmerge_export.backends.common import entry_of
from tsmerge_export.backends.components import BundleSession, names_of
from tsmerge_export.backends.engines.profile import Profile
from tsmerge_export.backends.tensorrt.names import PLUGIN, PLUGIN_NAMESPACE, PLUGIN_VERSION
from tsmerge_export.bundle import Bundle, ComponentInfo, TensorInfo
from tsmerge_export.bundle.target import TargetPart
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError

#: Where the plugin library is, unless a flag or an argument says so.
PLUGIN_VARIABLE = "TSMERGE_TRT_PLUGIN"
LIBRARY = "libtsmerge_trt.so"
_MAJORS = (10, 11)


def find_plugin(given: str | Path | None = None) -> Path | None:
    """The plugin library: an argument, else the environment variable, else None."""
    chosen = given or os.environ.get(PLUGIN_VARIABLE)
    return Path(chosen) if chosen else None


def preflight(plugin: Path | None) -> list[str]:
    """What is missing for building and running plugin-form engines here, one line each; empty: nothing.

    Args:
        plugin: the library, from :func:`find_plugin`.
    """
    missing = []
    try:
        trt: Any = importlib.import_module("tensorrt")
        major = int(str(trt.__version__).split(".")[0])
        if major not in _MAJORS:
            missing.append(f"TensorRT {trt.__version__} is installed, 10 or 11 is needed")
    except ImportError:
        trt, major = None, 0
        missing.append("the Python package tensorrt is not installed (NVIDIA's index has it; it needs a GPU)")
    try:
        importlib.import_module("polygraphy")
    except ImportError:
        missing.append(how_to_install("polygraphy"))
    devices = gpu_count()
    if devices is None:
        missing.append("no NVIDIA driver (libcuda.so.1)")
    elif devices == 0:
        missing.append("the NVIDIA driver sees no GPU")
    missing += _plugin_problems(plugin, trt, major)
    return missing


def gpu_count() -> int | None:
    """GPUs that the driver sees; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _plugin_problems(plugin: Path | None, trt: Any, major: int) -> list[str]:
    if plugin is None:
        return [
            f"no plugin library; build plugins/local_merge and give --plugin {LIBRARY} (or set {PLUGIN_VARIABLE})"
        ]
    if not plugin.is_file():
        return [f"the plugin library {plugin} does not exist"]
    try:
        library = ctypes.CDLL(str(plugin.resolve()))
    except OSError as error:
        return [f"the plugin library {plugin} cannot be loaded: {error}"]
    problems = [
        f"the plugin library {plugin} has no symbol {name}; use the one that plugins/local_merge builds as {LIBRARY}"
        for name in ("getCreators", "tsmergeTensorRTMajor")
        if not hasattr(library, name)
    ]
    if problems:
        return problems
    built_for = library.tsmergeTensorRTMajor()
    if major and built_for != major:
        return [
            f"the plugin library {plugin} is built for TensorRT {built_for}, {major} is installed; build it again"
        ]
    if trt is None:
        return []
    registry = trt.get_plugin_registry()
    if registry.get_creator(PLUGIN, PLUGIN_VERSION, PLUGIN_NAMESPACE) is None:
        registry.load_library(str(plugin.resolve()))
    if registry.get_creator(PLUGIN, PLUGIN_VERSION, PLUGIN_NAMESPACE) is None:
        return [
            f"TensorRT's registry finds no {PLUGIN} version {PLUGIN_VERSION} in namespace {PLUGIN_NAMESPACE!r} "
            f"after loading {plugin}"
        ]
    return []


def require(plugin: Path | None) -> None:
    """Raise MissingDependencyError that lists everything :func:`preflight` misses."""
    missing = preflight(plugin)
    if missing:
        raise MissingDependencyError("TensorRT cannot be used here: " + "; ".join(missing))


def build_engine(model: Path, engine: Path, profile: Profile, plugin: Path | None) -> None:
    """Build a plugin-form engine with Polygraphy, strongly typed.

    Raises:
        MissingDependencyError: see :func:`require`. UnsupportedError: TensorRT cannot build it.
    """
    require(plugin)
    backend: Any = importlib.import_module("polygraphy.backend.trt")
    shapes = backend.Profile()
    for name, (low, usual, high) in profile.shapes.items():
        shapes.add(name, min=low, opt=usual, max=high)
    try:
        network = backend.NetworkFromOnnxPath(str(model), strongly_typed=True)
        built = backend.EngineFromNetwork(network, config=backend.CreateConfig(profiles=[shapes]))
        backend.SaveEngine(built, path=str(engine))()
    except Exception as error:  # Polygraphy raises its own class for what TensorRT logs
        raise UnsupportedError(f"{model.name}: TensorRT cannot build it: {_one_line(error)}") from error


class EngineSession:
    """An engine file, as :class:`~tsmerge_export.backends.onnxruntime.session.GraphSession` is an ONNX file.

    The file is an executable: check the bundle first. Without an engine one is built from the plugin form.
    """

    def __init__(
        self, engine: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], plugin: Path | None
    ) -> None:
        require(plugin)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        common: Any = importlib.import_module("polygraphy.backend.common")
        backend: Any = importlib.import_module("polygraphy.backend.trt")
        try:
            self._runner = backend.TrtRunner(backend.EngineFromBytes(common.BytesFromPath(str(engine))))
            self._runner.activate()
        except Exception as error:
            raise UnsupportedError(f"{engine}: TensorRT cannot load it: {_one_line(error)}") from error

    def __repr__(self) -> str:
        return called("EngineSession", **names_of(self))

    def close(self) -> None:
        """Free the engine's memory."""
        self._runner.deactivate()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Run the engine; see :meth:`GraphSession.run`."""
        feed = prepare(inputs, self.inputs)
        try:
            found = self._runner.infer(feed, copy_outputs_to_host=True)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise UsageError(f"the engine does not run on {shapes}: {_one_line(error)}") from error
        return {info.name: np.asarray(found[info.name]) for info in self.outputs}


class TensorrtSession(BundleSession[EngineSession]):
    """A bundle in TensorRT: one engine per component that merges, from the bundle or built now from its plugin form."""

    def __init__(self, bundle: Bundle, plugin: str | Path | None = None) -> None:
        target = entry_of(bundle.contents, "tensorrt")
        library = find_plugin(plugin)
        require(library)
        sessions = {
            c.name: _open(bundle, c, target.components[c.name], library)
            for c in bundle.components
            if c.name in target.components
        }
        super().__init__(bundle, sessions)


def _open(bundle: Bundle, component: ComponentInfo, entry: TargetPart, library: Path | None) -> EngineSession:
    import tempfile

    if entry.engine:
        return EngineSession(bundle.file(entry.engine), component.inputs, component.outputs, library)
    shapes = {name: (sizes.min, sizes.opt, sizes.max) for name, sizes in entry.profile.items()}
    with tempfile.TemporaryDirectory(prefix="tsmerge-") as folder:
        built = Path(folder, "model.engine")
        build_engine(bundle.file(entry.onnx), built, Profile(shapes), library)
        return EngineSession(built, component.inputs, component.outputs, library)


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:300]
