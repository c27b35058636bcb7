"""ONNX Runtime as a back end: it runs the portable file as it is, with native operators where there is a library; or a
form of it for one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tsmerge_export.backends.base import Backend, Part, Told
from tsmerge_export.backends.describe import Block
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import FLAG
from tsmerge_export.settings.precision import BF16

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends import Providers
    from tsmerge_export.backends.components import BundleSession
    from tsmerge_export.backends.onnxruntime.session import Session
    from tsmerge_export.backends.target import Target
    from tsmerge_export.bundle import Bundle

_USELESS = "; leave it out"


class OnnxRuntime(Backend):
    """See the module."""

    name = "onnxruntime"
    beside = False
    run_time = True
    low_precision = True
    graphs = True
    one_shape = True
    without: ClassVar[Mapping[str, str]] = {
        "dtype": ", whose files are made half by --precision fp16 or bf16",
        "shapes": _USELESS,
        "capabilities": _USELESS,
        "plugin": ", where it goes with the providers",
    }

    def check(self, target: Target, merge: MergeConfig) -> None:
        """Every method runs; in files of one shape those whose lengths follow from the length alone."""
        if target.static is None or merge.spec is None:
            return
        if merge.at_run_time:
            raise UnsupportedError(
                f"{FLAG} {target.static}: --ratio runtime chooses lengths when the file runs; give a ratio such as "
                f"1/4, or leave out {FLAG}"
            )
        if merge.spec.static:
            return
        from tsmerge_export import ops  # needs onnx, which what runs a bundle does without

        varies = ops.schema(merge.spec.op_type).data_dependent
        why = "how many tokens stay follows from the data" if varies else "its operator has no such form"
        raise UnsupportedError(
            f"{FLAG} {target.static}: --merge {merge.method} has no lengths that are constants: {why}; use --merge "
            f"{registry.able(lambda one: one.static)}, or leave out {FLAG}"
        )

    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        """The file as it is."""
        return portable

    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        """Nothing: the portable files are there, and proved. For one shape, in their place a form that is proved at
        it."""
        if target.static is None:
            return {}
        from tsmerge_export.backends.onnxruntime.static.build import build_static
        from tsmerge_export.backends.onnxruntime.static.version import check_version

        check_version()
        return {"runtime": self.name, **build_static(target, parts, scratch, told)}

    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> Session:
        """With the plugin form where TensorRT's provider comes first, see :mod:`.providers`."""
        from tsmerge_export.backends.onnxruntime.place import CPU, check_providers, names
        from tsmerge_export.backends.onnxruntime.providers import with_plugin
        from tsmerge_export.backends.onnxruntime.session import Session

        if bundle.contents.one_shape is not None:
            from tsmerge_export.backends.onnxruntime.static.version import check_version

            check_version()
        chosen = with_plugin(providers, bundle, plugin)
        low = bundle.contents.precision
        if low is not None and low.kind == BF16 and set(names(check_providers(chosen.providers))) == {CPU}:
            raise UnsupportedError(
                f"{bundle.path}: its products are bf16, which ONNX Runtime has none of on a CPU; give the providers of "
                "a GPU, or export with --precision fp16"
            )
        return Session(
            bundle, threads=threads, providers=chosen.providers, files=chosen.files, plugin=chosen.operators
        )

    def forecaster(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> BundleSession[Any]:
        """Of files of one shape, sessions that take any batch."""
        from tsmerge_export.backends.onnxruntime.static.batches import any_batch

        session = self.load(bundle, threads, providers, plugin)
        shape = bundle.contents.one_shape
        return session if shape is None else any_batch(session, shape.batch)

    def describe(self, target: Mapping[str, Any]) -> Sequence[Block]:
        """Of files of one shape, what was proved and how they run."""
        from tsmerge_export.backends.onnxruntime.static.describe import blocks

        return blocks(target) if target.get("static") else ()

    def limits(self, where: str) -> str:
        """All of it was run there."""
        return f"Verdicts and times are those of {where}."
