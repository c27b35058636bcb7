"""OpenVINO as a back end: the portable file with its functions written in place, proved in OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tsmerge_export.backends.base import Backend, Part, Told
from tsmerge_export.backends.common import refuse_options
from tsmerge_export.backends.describe import Block, Code, Grid, Text
from tsmerge_export.settings.config import MergeConfig

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.backends import Providers
    from tsmerge_export.backends.openvino.session import NetworksSession
    from tsmerge_export.backends.target import Target
    from tsmerge_export.bundle import Bundle


class OpenVINO(Backend):
    """See the module."""

    name = "openvino"
    inlined = True
    run_time = True
    whole = True
    proves_alone = True
    graphs = True
    without: ClassVar[Mapping[str, str]] = {
        "dtype": ", which is proved in float32",
        "shapes": ", which takes any shape",
        "capabilities": ", which runs on the CPU",
        "plugin": ", which has none",
    }

    def check(self, target: Target, merge: MergeConfig) -> None:
        """Every method runs, where OpenVINO is installed. What it cannot load it says itself, file by file."""
        from tsmerge_export.backends.openvino.network import installed

        installed()

    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        """Functions written in place, which OpenVINO does not expand."""
        from onnx import inliner

        return inliner.inline_local_functions(portable) if portable.functions else portable

    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        """No files of its own: the bundle's are inlined. All of them are loaded and run in OpenVINO."""
        from tsmerge_export.backends.openvino.network import version
        from tsmerge_export.backends.openvino.session import NetworkSession

        sessions = {part.name: NetworkSession(part.merged, part.inputs, part.outputs) for part in parts}
        first, *behind = parts
        verdicts = {first.name: first.prove.values(sessions[first.name].run, target.dtype)}
        told(1, len(parts))
        if behind:
            verdicts |= dict.fromkeys((part.name for part in behind), first.prove.in_a_row(sessions))
            told(len(parts), len(parts))
        entries = {part.name: {"onnx": part.merged.name, "parity": verdicts[part.name]} for part in parts}
        return {
            "runtime": self.name, "dtype": target.dtype, "version": version(), "components": entries,
        }  # fmt: skip

    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> NetworksSession:
        """One session per component."""
        from tsmerge_export.backends.openvino.session import NetworksSession

        refuse_options(self.name, providers=providers, plugin=plugin)
        return NetworksSession(bundle, threads=threads)

    def forecaster(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> NetworksSession:
        """The same: all components are there."""
        return self.load(bundle, threads, providers, plugin)

    def limits(self, where: str) -> str:
        """Parity is that of both."""
        return f"Verdicts and times are those of {where}; parity was repeated in OpenVINO. Its speed was not measured."

    def describe(self, target: Mapping[str, Any]) -> Sequence[Block]:
        """What was proved, and how to run it."""
        rows = [
            (name, entry["onnx"], str(entry["parity"]["rows"]), f"{entry['parity']['max_rel']:.1e}")
            for name, entry in target["components"].items()
        ]
        first, against = rows[0][1], next(iter(target["components"].values()))["parity"].get("against")
        against = against or "eager PyTorch with merging"
        return [
            Text(f"Proved in OpenVINO {target['version']} on the CPU, in float32, against {against}."),
            Grid(
                "Parity in OpenVINO", ("component", "file", "rows compared", "largest relative error"), rows,
                short="parity in openvino",
            ),
            Text("Without this package, with float32 asked for: a CPU that has bfloat16 would use it."),
            Code(
                "import openvino\n"
                f'model = openvino.Core().compile_model("{first}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})'
            ),
        ]  # fmt: skip
