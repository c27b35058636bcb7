"""TensorRT-RTX as a back end: standard operators alone, engines built ahead of time, run by TensorRT-RTX itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from tsmerge_export.backends.base import Part
from tsmerge_export.backends.common import refuse_options
from tsmerge_export.backends.engines.backend import EngineBackend, in_memory
from tsmerge_export.backends.engines.profile import Profile
from tsmerge_export.bundle import Bundle, sha256
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends import Providers
    from tsmerge_export.backends.target import Target


class TensorRTRTX(EngineBackend):
    """See the module."""

    name = "tensorrt-rtx"
    without: ClassVar[Mapping[str, str]] = {"plugin": ", which has no plugins", "inline": "; leave it out"}
    on_gpu = "The engines have never run on a GPU."
    ending = "rtx"

    def check(self, target: Target, merge: MergeConfig) -> None:
        """See :meth:`Backend.check`."""
        from tsmerge_export.backends.tensorrt_rtx.engine import check_capabilities, check_installed

        super().check(target, merge)
        if target.dtype == "bf16":
            raise UnsupportedError("--dtype bf16 is not proved with --runtime tensorrt-rtx; use fp16 or fp32")
        check_capabilities(target.capabilities)
        check_installed()

    def static(self, portable: onnx.ModelProto) -> onnx.ModelProto:
        """All functions with static shapes."""
        from tsmerge_export.backends.static_functions import static_functions

        return static_functions(portable, merge=True)

    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        """Standard operators alone, all shapes static."""
        from tsmerge_export.backends.engines.lower import set_precision
        from tsmerge_export.backends.tensorrt_rtx.form import standard_form

        return standard_form(self.static(set_precision(portable, dtype)))

    def engine(
        self,
        target: Target,
        part: Part,
        portable: onnx.ModelProto,
        profile: Profile,
        folder: Path,
        scratch: Path,
    ) -> dict[str, Any]:
        """The engine, and the compiler's plans of both models."""
        from tsmerge_export.backends.tensorrt_rtx.engine import DEFAULT_CAPABILITIES, build_engine
        from tsmerge_export.onnx_model.weights import write_model

        capabilities = target.capabilities or DEFAULT_CAPABILITIES
        sources = [("merged", portable, folder)]
        if part.merges:
            sources.insert(0, ("unmerged", in_memory(part.unmerged), scratch))
        plans = {}
        name = f"{part.name}.{self.ending}.engine"
        for which, source, place in sources:
            form = place / self.file(part)
            write_model(self.lower(source, target.dtype), form)
            plans[which] = build_engine(form, place / name, profile, capabilities).to_dict()
        return {
            "engine": name,
            "engine_sha256": sha256(folder / name),
            "compute_capabilities": list(capabilities),
            "plan": plans,
        }

    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> NoReturn:
        """Raises UnsupportedError."""
        refuse_options(self.name, threads=threads, providers=providers)
        raise UnsupportedError(
            "engines of tensorrt-rtx are built here and run by TensorRT-RTX itself (tensorrt_rtx --loadEngine=FILE, or "
            "its C++ and Python API); load the bundle with runtime onnxruntime"
        )
