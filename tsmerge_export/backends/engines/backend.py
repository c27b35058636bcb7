"""What back ends have in common that build engines: ranges of shapes, a form that is proved before it is built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tsmerge_export.backends.base import Backend, Part, Told
from tsmerge_export.backends.describe import Block
from tsmerge_export.backends.engines.describe import blocks
from tsmerge_export.backends.engines.profile import Profile, make_profile
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends.target import Target


class EngineBackend(Backend):
    """A back end that plans lengths and operators beforehand."""

    why_fixed = (
        "must know all lengths from the shapes of its inputs, and a ratio that is chosen later says none"
    )
    #: What has not been run, and where the reader learns more: a caveat of every bundle.
    on_gpu: ClassVar[str]
    #: Ending of the form's file: ``<component>.<ending>.onnx``.
    ending: ClassVar[str]

    @abstractmethod
    def static(self, portable: onnx.ModelProto) -> onnx.ModelProto:
        """The form before it is lowered for good: float32, functions with static shapes; ONNX Runtime runs it."""

    @abstractmethod
    def engine(
        self,
        target: Target,
        part: Part,
        portable: onnx.ModelProto,
        profile: Profile,
        folder: Path,
        scratch: Path,
    ) -> dict[str, Any]:
        """Write the form of one component, whose static form is proved, and where that can be done its engine.

        Returns:
            What the manifest says of it besides ``onnx``, ``profile`` and ``parity``.
        """

    def check(self, target: Target, merge: MergeConfig) -> None:
        """See :meth:`Backend.check`."""
        if merge.spec is not None and not merge.spec.static:
            raise UnsupportedError(
                f"--merge {merge.method} cannot run in {self.name}, which plans lengths and operators beforehand; "
                f"use --merge {registry.able(lambda one: one.static)}, or --runtime onnxruntime"
            )

    def prove(self, part: Part, portable: onnx.ModelProto, scratch: Path) -> dict[str, Any]:
        """Parity of the static form. Raises VerdictError."""
        from tsmerge_export.onnx_model.weights import write_model

        path = scratch / f"{part.name}.target.onnx"
        write_model(self.static(portable), path)
        return part.prove.file(path)

    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        """See :meth:`Backend.build`."""
        profiles = []
        for part in parts:
            assert part.longest is not None  # graphs from files are refused, see Backend.graphs
            profiles.append(make_profile(part.inputs, target.shapes, longest=part.longest))
        entries = {}
        for done, (part, profile) in enumerate(zip(parts, profiles, strict=True)):
            check_removed(part, profile)
            portable = in_memory(part.merged)
            entries[part.name] = {
                "profile": profile.to_dict(),
                "onnx": self.file(part),
                "parity": self.prove(part, portable, scratch),
                **self.engine(target, part, portable, profile, folder, scratch),
            }
            told(done + 1, len(parts))
        return {
            "runtime": self.name, "dtype": target.dtype, "on_gpu": self.on_gpu, "components": entries,
        }  # fmt: skip

    def file(self, part: Part) -> str:
        """Name of the form's file."""
        return f"{part.name}.{self.ending}.onnx"

    def limits(self, where: str) -> str:
        """See :meth:`Backend.limits`."""
        return f"Verdicts and times are those of {where}; no speed of an engine is claimed."

    def describe(self, target: Mapping[str, Any]) -> Sequence[Block]:
        """See :meth:`Backend.describe`."""
        return blocks(target)


def check_removed(part: Part, profile: Profile) -> None:
    """Raise UnsupportedError where more tokens would be removed at once than TensorRT's TopK can choose."""
    from tsmerge_export.ops.static import TOPK_MOST

    largest = next(iter(profile.shapes.values()))[2]
    if len(largest) < 2 or largest[1] <= TOPK_MOST:
        return
    for name, removed in part.removed(largest[1]):
        if removed > TOPK_MOST:
            raise UnsupportedError(
                f"{name}: {removed} tokens would merge at once at the largest shape, TensorRT's TopK "
                f"chooses at most {TOPK_MOST}; lower --max-shapes or --ratio"
            )


def in_memory(file: Path) -> onnx.ModelProto:
    """A file that is small enough to be taken apart. Raises UnsupportedError for another."""
    from tsmerge_export.onnx_model import weights

    model = weights.read(file)
    if weights.is_large(model):
        raise UnsupportedError(
            f"{file.name}: weights this large are supported with --runtime onnxruntime alone"
        )
    return model
