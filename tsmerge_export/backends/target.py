"""What a bundle gets for a runtime beyond the portable file: other forms of the graph, engines, how to build them.

Lengths, precision and plugin are the target's business; merging and its proof are not: the form that is handed over is
checked against eager PyTorch by the same parity verdict, with the plugin node standing for its function.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.backends import RUNTIMES, check_runtime
from tsmerge_export.backends.engines.profile import FLAGS, Profile, make_profile
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.settings.config import MergeConfig

if TYPE_CHECKING:
    import onnx

    from tsmerge_export.checkpoint import LoadedModel
    from tsmerge_export.compile.build import Built
    from tsmerge_export.console.progress import Progress
    from tsmerge_export.verify.checks import Checks

DTYPES = ("fp32", "fp16", "bf16")
ON_GPU = "The engines have never run on a GPU; the kernels of the plugin have, see docs/gpu.md."
SCRIPT = "build_engine.py"
_METHODS = ("local", "global", "none")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Target:
    """For which runtime a bundle is made.

    Attributes:
        dtype: of matrix products: ``fp32``, ``fp16`` or ``bf16``; everything else is float32.
        shapes: smallest, usual and largest input shapes, each None for the defaults.
        capabilities: for TensorRT-RTX, compute capabilities; empty for the defaults.
        plugin: the plugin library for TensorRT.
    """

    runtime: str = RUNTIMES[0]
    dtype: str = "fp32"
    shapes: tuple[Shapes | None, Shapes | None, Shapes | None] = field(default=(None, None, None))
    capabilities: tuple[str, ...] = ()
    plugin: Path | None = None

    @property
    def needs_more(self) -> bool:
        """Whether the bundle holds more than the portable file."""
        return self.runtime != RUNTIMES[0]

    def flags(self) -> list[str]:
        """The flags of the command line that ask for it; none for the default."""
        if not self.needs_more:
            return []
        out = ["--runtime", self.runtime, "--dtype", self.dtype]
        for flag, shapes in zip(FLAGS, self.shapes, strict=True):
            if shapes is not None:
                out += [flag, ",".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in shapes.items())]
        if self.capabilities:
            out += ["--compute-capability", ",".join(self.capabilities)]
        return out if self.plugin is None else [*out, "--plugin", str(self.plugin)]

    def check(self, merge: MergeConfig, *, inline: bool) -> None:
        """Fail on what cannot work, before any work.

        Raises:
            UsageError: unknown names, or flags (or a library of native operators) without effect.
            UnsupportedError: a method that the runtime cannot run.
            MissingDependencyError: TensorRT-RTX or onnx-graphsurgeon is not installed.
        """
        check_runtime(self.runtime)
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}")
        if not self.needs_more:
            for flag, given in (
                ("--dtype", self.dtype != DTYPES[0]),
                ("--min-shapes, --opt-shapes, --max-shapes", any(self.shapes)),
                ("--compute-capability", bool(self.capabilities)),
                ("--plugin", self.plugin is not None),
            ):
                if given:
                    instead = f"set {native.VARIABLE}" if flag == "--plugin" else "leave it out"
                    raise UsageError(f"{flag} has no effect with --runtime {self.runtime}; {instead}")
            if inline:
                native.refuse("--inline")
            return
        native.refuse(f"--runtime {self.runtime}")
        if inline:
            raise UsageError(f"--inline has no effect with --runtime {self.runtime}; leave it out")
        if merge.method not in _METHODS:
            raise UnsupportedError(
                f"--merge {merge.method} cannot run in {self.runtime}, which plans lengths and operators beforehand; "
                "use --merge local or global, or --runtime onnxruntime"
            )
        if self.runtime == "tensorrt-rtx":
            from tsmerge_export.backends.tensorrt_rtx.engine import check_installed

            if self.dtype == "bf16":
                raise UnsupportedError(
                    "--dtype bf16 is not proved with --runtime tensorrt-rtx; use fp16 or fp32"
                )
            if self.plugin is not None:
                raise UsageError("--plugin has no effect with --runtime tensorrt-rtx, which has no plugins")
            check_installed()
        else:
            from tsmerge_export.backends.engines.lower import graphsurgeon

            if merge.causal or merge.similarity not in (None, "cosine"):
                flag = "--causal" if merge.causal else f"--similarity {merge.similarity}"
                raise UnsupportedError(
                    f"{flag} is not in the TensorRT plugin; leave it out, or use --runtime tensorrt-rtx or onnxruntime"
                )
            if self.capabilities:
                raise UsageError(
                    "--compute-capability has no effect with --runtime tensorrt: engines are built for the GPU there"
                )
            graphsurgeon()


def entry_of(manifest: Mapping[str, Any], runtime: str) -> dict[str, Any]:
    """The manifest's account of a target. Raises UsageError when the bundle was made for another runtime."""
    target = manifest.get("target")
    if not isinstance(target, dict) or target.get("runtime") != runtime:
        made = target.get("runtime") if isinstance(target, dict) else RUNTIMES[0]
        raise UsageError(f"the bundle was made for {made}; export it with --runtime {runtime}")
    return target


def make(
    target: Target,
    loaded: LoadedModel,
    merge: MergeConfig,
    built: Sequence[Built],
    *,
    folder: Path,
    scratch: Path,
    checks: Checks,
    progress: Progress,
) -> dict[str, Any]:
    """Write the target's files into the bundle's folder.

    Returns:
        The manifest's entry: runtime, dtype, per component its files, profile, verdict and, where there is one, engine.

    Raises:
        UnsupportedError: the runtime cannot build the model. VerdictError: the form differs from eager PyTorch.
        UsageError: shapes that do not fit.
    """
    from tsmerge_export import families

    family = families.get(loaded.family)
    longest = family.context(loaded.model)
    profiles = [make_profile(item.component.inputs, target.shapes, longest=longest) for item in built]
    progress.step("engine")
    maker = _rtx if target.runtime == "tensorrt-rtx" else _tensorrt
    entries = {}
    for done, (item, profile) in enumerate(zip(built, profiles, strict=True)):
        check_removed(item, profile)
        entry: dict[str, Any] = {"profile": profile.to_dict()}
        entry |= maker(target, loaded, merge, item, profile, folder, scratch, checks)
        entries[item.component.name] = entry
        progress.update(done + 1, len(built))
    result: dict[str, Any] = {"runtime": target.runtime, "dtype": target.dtype, "on_gpu": ON_GPU}
    if target.runtime == "tensorrt":
        (folder / SCRIPT).write_text(_script(entries), encoding="utf-8")
        result["script"] = SCRIPT
    return result | {"components": entries}


def check_removed(item: Built, profile: Profile) -> None:
    """Raise UnsupportedError where more tokens would be removed at once than TensorRT's TopK can choose."""
    from tsmerge_export.onnx_model.inspect import inspect_file
    from tsmerge_export.ops.static import TOPK_MOST

    largest = next(iter(profile.shapes.values()))[2]
    if len(largest) < 2 or largest[1] <= TOPK_MOST:
        return
    for found in inspect_file(item.merged, batch=1, length=largest[1])["merges"]:
        removed = found["before"] - found["after"]
        if removed > TOPK_MOST:
            raise UnsupportedError(
                f"{found['name']}: {removed} tokens would merge at once at the largest shape, TensorRT's TopK "
                f"chooses at most {TOPK_MOST}; lower --max-shapes or --ratio"
            )


def _verdict(
    model: onnx.ModelProto,
    loaded: LoadedModel,
    merge: MergeConfig,
    item: Built,
    scratch: Path,
    checks: Checks,
) -> dict[str, Any]:
    """Parity of a form whose functions are there still, float32, in ONNX Runtime. Raises VerdictError."""
    from tsmerge_export import families
    from tsmerge_export.compile.build import write_model
    from tsmerge_export.compile.onnx_export import EXAMPLE
    from tsmerge_export.verify import parity

    path = scratch / f"{item.component.name}.target.onnx"
    write_model(model, path)
    report = parity.check(
        families.get(loaded.family), item.component, loaded.model, merge, path,
        replace(checks, atol=None, rtol=None), avoid=EXAMPLE,
    )  # fmt: skip
    if not report.passed:
        first = next(iter(report.failures), "no row was compared")
        raise VerdictError(f"{item.component.name}: parity of the form for the runtime failed: {first}")
    return {key: value for key, value in report.to_dict().items() if key != "details"}


def _rtx(
    target: Target,
    loaded: LoadedModel,
    merge: MergeConfig,
    item: Built,
    profile: Profile,
    folder: Path,
    scratch: Path,
    checks: Checks,
) -> dict[str, Any]:
    from tsmerge_export.backends.engines.lower import set_precision, standard_form, static_functions
    from tsmerge_export.backends.tensorrt_rtx.engine import DEFAULT_CAPABILITIES, build_engine
    from tsmerge_export.bundle import sha256
    from tsmerge_export.compile.build import write_model

    name = item.component.name
    capabilities = target.capabilities or DEFAULT_CAPABILITIES
    portable = _in_memory(item.merged)
    verdict = _verdict(static_functions(portable, merge=True), loaded, merge, item, scratch, checks)
    plans = {}
    for which, source, place in (
        ("unmerged", _in_memory(item.unmerged), scratch),
        ("merged", portable, folder),
    ):
        if which == "unmerged" and not merge.active:
            continue
        precise = static_functions(set_precision(source, target.dtype), merge=True)
        file, engine = place / f"{name}.rtx.onnx", place / f"{name}.rtx.engine"
        write_model(standard_form(precise), file)
        plans[which] = build_engine(file, engine, profile, capabilities).to_dict()
    return {
        "onnx": f"{name}.rtx.onnx",
        "engine": f"{name}.rtx.engine",
        "engine_sha256": sha256(folder / f"{name}.rtx.engine"),
        "compute_capabilities": list(capabilities),
        "plan": plans,
        "parity": verdict,
    }


def _in_memory(file: Path) -> Any:
    from tsmerge_export.onnx_model import weights as onnx_weights

    model = onnx_weights.read(file)
    if onnx_weights.is_large(model):
        raise UnsupportedError(
            f"{file.name}: weights this large are supported with --runtime onnxruntime alone"
        )
    return model


def _tensorrt(
    target: Target,
    loaded: LoadedModel,
    merge: MergeConfig,
    item: Built,
    profile: Profile,
    folder: Path,
    scratch: Path,
    checks: Checks,
) -> dict[str, Any]:
    from tsmerge_export.backends.engines.lower import plugin_form, set_precision, static_functions
    from tsmerge_export.backends.tensorrt import engine as tensorrt
    from tsmerge_export.compile.build import write_model

    name = item.component.name
    portable = _in_memory(item.merged)
    static = static_functions(portable, merge=False)
    entry: dict[str, Any] = {"onnx": f"{name}.trt.onnx"}
    entry["parity"] = _verdict(static, loaded, merge, item, scratch, checks)
    write_model(plugin_form(set_precision(static, target.dtype)), folder / entry["onnx"])
    entry["commands"] = commands(entry["onnx"], profile)
    library = tensorrt.find_plugin(target.plugin)
    entry["missing"] = tensorrt.preflight(library)
    if not entry["missing"]:
        entry |= _on_gpu(target, loaded, merge, item, profile, folder, library, checks)
    return entry


def _on_gpu(
    target: Target,
    loaded: LoadedModel,
    merge: MergeConfig,
    item: Built,
    profile: Profile,
    folder: Path,
    library: Path | None,
    checks: Checks,
) -> dict[str, Any]:
    """Build the engine and repeat the parity verdict on it. This needs a GPU."""
    from tsmerge_export import families
    from tsmerge_export.backends.tensorrt import engine as tensorrt
    from tsmerge_export.bundle import TensorInfo
    from tsmerge_export.verify import parity

    component = item.component
    engine = folder / f"{component.name}.trt.engine"
    tensorrt.build_engine(folder / f"{component.name}.trt.onnx", engine, profile, library)
    given, made = (
        [TensorInfo(spec.name, spec.dtype, spec.dims) for spec in specs]
        for specs in (component.inputs, component.outputs)
    )
    session = tensorrt.EngineSession(engine, given, made, library)
    family = families.get(loaded.family)
    low, _, high = next(iter(profile.shapes.values()))
    cases = [
        case
        for case in checks.corpus(family.context(loaded.model))
        if low[0] <= case.batch <= high[0] and low[1] <= case.length <= high[1]
    ]
    try:
        report = parity.check(
            family, component, loaded.model, merge, item.merged, replace(checks, atol=None, rtol=None, cases=cases),
            dtype={"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[target.dtype],
            values_from=session.run,
        )  # fmt: skip
    finally:
        session.close()
    if not report.passed:
        raise VerdictError(
            f"{component.name}: parity of the engine failed: {next(iter(report.failures), 'no row')}"
        )
    return {
        "engine": engine.name,
        "engine_parity": {key: value for key, value in report.to_dict().items() if key != "details"},
    }


def commands(model: str, profile: Profile) -> dict[str, str]:
    """One command of trtexec and one of Polygraphy that build the engine, run in the bundle's folder."""
    engine = model.removesuffix(".onnx") + ".engine"
    flags = ("min", "opt", "max")
    ranges = {which: shlex.quote(profile.flag(number)) for number, which in enumerate(flags)}
    by_name = {
        which: " ".join(
            shlex.quote(f"{name}:[{','.join(map(str, shapes[number]))}]")
            for name, shapes in profile.shapes.items()
        )
        for number, which in enumerate(flags)
    }
    return {
        "trtexec": f"trtexec --onnx={model} --stronglyTyped --dynamicPlugins=libtsmerge_trt.so "
        + " ".join(f"--{which}Shapes={text}" for which, text in ranges.items())
        + f" --saveEngine={engine}",
        "polygraphy": f"polygraphy convert {model} --convert-to trt --strongly-typed --plugins libtsmerge_trt.so "
        + " ".join(f"--trt-{which}-shapes {text}" for which, text in by_name.items())
        + f" -o {engine}",
    }


def _script(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """``build_engine.py`` of a bundle: needs tensorrt, polygraphy and the plugin library, nothing of this package."""
    models = {entry["onnx"]: entry["profile"] for entry in entries.values()}
    return f'''"""Builds the engines of this folder: python {SCRIPT} libtsmerge_trt.so

Needs a GPU, TensorRT 10 or 11 with its Python package, polygraphy, and the plugin library built for that TensorRT.
"""

import pathlib
import sys

import tensorrt as trt
from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, Profile, SaveEngine

MODELS = {models!r}

if len(sys.argv) != 2:
    sys.exit("usage: python {SCRIPT} libtsmerge_trt.so")
registry = trt.get_plugin_registry()
registry.load_library(str(pathlib.Path(sys.argv[1]).resolve()))
if registry.get_creator("LocalMerge", "1", "") is None:
    sys.exit(sys.argv[1] + ": holds no plugin LocalMerge, or is built for another major version of TensorRT")
folder = pathlib.Path(__file__).resolve().parent
for model, shapes in MODELS.items():
    profile = Profile()
    for name, sizes in shapes.items():
        profile.add(name, min=sizes["min"], opt=sizes["opt"], max=sizes["max"])
    network = NetworkFromOnnxPath(str(folder / model), strongly_typed=True)
    engine = EngineFromNetwork(network, config=CreateConfig(profiles=[profile]))
    SaveEngine(engine, path=str(folder / model.replace(".onnx", ".engine")))()
'''
