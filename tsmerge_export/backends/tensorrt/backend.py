"""TensorRT as a back end: one plugin node per merge, engines built and proved where a GPU is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tsmerge_export.backends.base import Part, Told
from tsmerge_export.backends.common import refuse_options
from tsmerge_export.backends.engines.backend import EngineBackend
from tsmerge_export.backends.engines.profile import Profile
from tsmerge_export.backends.tensorrt import script
from tsmerge_export.backends.tensorrt.names import NODE
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends import Providers
    from tsmerge_export.backends.target import Target
    from tsmerge_export.backends.tensorrt.engine import TensorrtSession
    from tsmerge_export.bundle import Bundle


class TensorRT(EngineBackend):
    """See the module."""

    name = "tensorrt"
    without: ClassVar[Mapping[str, str]] = {
        "capabilities": ": engines are built for the GPU there",
        "inline": "; leave it out",
    }
    node = NODE
    on_gpu = "The engines have never run on a GPU; the kernels of the plugin have, see docs/gpu.md."
    ending = "trt"

    def check(self, target: Target, merge: MergeConfig) -> None:
        """See :meth:`Backend.check`."""
        from tsmerge_export.backends.tensorrt.plugin_form import graphsurgeon

        super().check(target, merge)
        if merge.causal or merge.similarity not in (None, "cosine"):
            flag = "--causal" if merge.causal else f"--similarity {merge.similarity}"
            raise UnsupportedError(
                f"{flag} is not in the TensorRT plugin; leave it out, or use --runtime tensorrt-rtx or onnxruntime"
            )
        graphsurgeon()

    def static(self, portable: onnx.ModelProto) -> onnx.ModelProto:
        """All functions but that of the merge, which the plugin stands for."""
        from tsmerge_export.backends.static_functions import static_functions

        return static_functions(portable, merge=False)

    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        """The plugin form."""
        from tsmerge_export.backends.engines.lower import set_precision
        from tsmerge_export.backends.tensorrt.plugin_form import plugin_form

        return plugin_form(set_precision(self.static(portable), dtype))

    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        """With a script that builds the engines elsewhere."""
        entry = super().build(target, parts, folder, scratch, told)
        (folder / script.NAME).write_text(script.text(entry["components"]), encoding="utf-8")
        return entry | {"script": script.NAME}

    def engine(
        self,
        target: Target,
        part: Part,
        portable: onnx.ModelProto,
        profile: Profile,
        folder: Path,
        scratch: Path,
    ) -> dict[str, Any]:
        """The plugin form, how to build it, and its engine where nothing is missing for one."""
        from tsmerge_export.backends.tensorrt import engine
        from tsmerge_export.onnx_model.weights import write_model

        form = folder / self.file(part)
        write_model(self.lower(portable, target.dtype), form)
        library = engine.find_plugin(target.plugin)
        missing = engine.preflight(library)
        entry = {"commands": script.commands(form.name, profile), "missing": missing}
        return entry if missing else entry | self._on_gpu(target, part, form, profile, library)

    def _on_gpu(
        self, target: Target, part: Part, form: Path, profile: Profile, library: Path | None
    ) -> dict[str, Any]:
        """Build the engine and repeat the parity verdict on it. This needs a GPU."""
        from tsmerge_export.backends.tensorrt import engine

        built = form.with_suffix(".engine")
        engine.build_engine(form, built, profile, library)
        session = engine.EngineSession(built, part.inputs, part.outputs, library)
        low, _, high = next(iter(profile.shapes.values()))
        try:
            verdict = part.prove.values(session.run, target.dtype, low, high)
        finally:
            session.close()
        return {"engine": built.name, "engine_parity": verdict}

    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> TensorrtSession:
        """Engines of the bundle, or built now."""
        from tsmerge_export.backends.tensorrt.engine import TensorrtSession

        refuse_options(self.name, threads=threads, providers=providers)
        return TensorrtSession(bundle, plugin)
