"""Merged against unmerged on a GPU, in ONNX Runtime's CUDA provider, in one interleaved run.

    python benchmarks/gpu.py prepare FOLDER [--models small,base] [--sizes base:512:8] [--without-weights]
    python benchmarks/gpu.py run FOLDER --plugin libtsmerge_ort_cuda.so [--sizes base:512:8] [--runs 9] [--json FILE]

T5 encoders of two published sizes, random weights: unmerged, and merged at N/4, N/2 and N/2 with compact positions,
each by the portable functions and by the native operators of `plugins/onnxruntime_cuda`, and made for that one shape
(`--static`) with a CUDA graph and without; with PyTorch there, eager sdpa
and torch.compile of the same encoder too. TF32 everywhere, inputs and outputs bound to the device. A size is
MODEL:TOKENS:BATCH. `run` needs onnxruntime-gpu alone; files prepared `--without-weights` get theirs from a seed there,
so that little has to travel to a machine with a GPU.

Prints medians and ratios to the unmerged file (of neighbouring turns), how many nodes run on the GPU, on the CPU and
copy between both, and how far operators and functions are apart, and names the card.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
#: d_model, d_ff, heads, layers.
MODELS = {"small": (512, 2048, 8, 6), "base": (768, 3072, 12, 12)}
#: name -> (ratio, positions)
MERGES = {
    "unmerged": None,
    "N/4": ("1/4", "gather"),
    "N/2": ("1/2", "gather"),
    "N/2, compact": ("1/2", "compact"),
}
SIZES = "base:512:64,base:512:8,base:512:1,base:2048:8,small:512:256"
VOCABULARY = 4096
WEIGHTS = "weights.bin"
#: Smaller tensors stay in the graph.
LARGE = 1 << 16


def config(name: str) -> dict[str, Any]:
    """Of a Chronos-T5 checkpoint of that size."""
    width, inner, heads, layers = MODELS[name]
    return {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": width, "d_ff": inner,
        "d_kv": 64, "num_heads": heads, "num_layers": layers, "num_decoder_layers": 1, "vocab_size": VOCABULARY,
        "feed_forward_proj": "relu", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "chronos_config": {
            "tokenizer_class": "MeanScaleUniformBins",
            "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}, "n_tokens": VOCABULARY,
            "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
            "model_type": "seq2seq", "context_length": 511, "prediction_length": 64, "num_samples": 20,
            "temperature": 1.0, "top_k": 50, "top_p": 1.0,
        },
    }  # fmt: skip


def prepare(folder: Path, models: list[str], sizes: list[str], without_weights: bool) -> None:
    """Export every model and merge, also for the sizes alone; weights beside the graph, or left out."""
    import torch

    from tsmerge_export.backends.onnxruntime.static.form import static_form
    from tsmerge_export.compile.checkpoint_source import CheckpointSource
    from tsmerge_export.compile.compilation import Compilation
    from tsmerge_export.families import get
    from tsmerge_export.settings.config import MergeConfig

    family = get("chronos-t5")
    for name in models:
        torch.manual_seed(0)
        model = family.build(config(name)).eval()
        component = family.components(model)[0]
        compilation = Compilation(CheckpointSource.load(model), MergeConfig(method="none"))
        folder.mkdir(parents=True, exist_ok=True)
        compilation.plain(component, folder)
        for label, merge in MERGES.items():
            settings = (
                MergeConfig(method="none")
                if merge is None
                else MergeConfig(ratio=merge[0], positions=merge[1])
            )
            with tempfile.TemporaryDirectory() as scratch:
                built = compilation.merged(component, Path(scratch), settings)
                graph = onnx.load(built.merged)
            target = folder / name / str(list(MERGES).index(label))
            target.mkdir(parents=True, exist_ok=True)
            (target / WEIGHTS).unlink(missing_ok=True)
            forms = {
                one: static_form(
                    graph, dict.fromkeys((v.name for v in graph.graph.input), _shape(one)), label
                )
                for one in sizes
                if one.split(":")[0] == name
            }
            onnx.save_model(
                graph,
                target / "model.onnx",
                save_as_external_data=True,
                location=WEIGHTS,
                size_threshold=LARGE,
            )
            there = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.external_data}
            for one, form in forms.items():
                for tensor in form.graph.initializer:
                    if tensor.name in there:  # the same weights, in the same file
                        tensor.CopyFrom(there[tensor.name])
                onnx.save_model(form, static_file(target, one))
            if without_weights:
                (target / WEIGHTS).unlink()
        np.savez(folder / name / "example.npz", **component.example(model, 1, 511))


def _shape(size: str) -> tuple[int, int]:
    _, tokens, batch = size.split(":")
    return int(batch), int(tokens)


def static_file(folder: Path, size: str) -> Path:
    """Of a merge's folder, the file for one size alone."""
    return folder / "static-{}x{}.onnx".format(*_shape(size))


def fill(file: Path) -> None:
    """Random weights where a file's are missing; the same for every file with the same tensors."""
    target = file.parent / WEIGHTS
    if target.exists():
        return
    graph = onnx.load(file, load_external_data=False).graph
    with target.open("wb") as out:
        for tensor in sorted(
            (tensor for tensor in graph.initializer if tensor.external_data),
            key=lambda tensor: int(_entry(tensor, "offset")),
        ):
            seed = int.from_bytes(tensor.name.encode()[-8:].rjust(8, b"\0"), "little")
            values = np.random.default_rng(seed).standard_normal(tuple(tensor.dims), np.float32) * 0.05
            assert tensor.data_type == onnx.TensorProto.FLOAT
            out.seek(int(_entry(tensor, "offset")))
            out.write(values.tobytes())


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "0")


def feed(folder: Path, batch: int, tokens: int) -> dict[str, np.ndarray]:
    """Random tokens, none of them padding."""
    rng = np.random.default_rng(tokens)
    out = {}
    for name, value in np.load(folder / "example.npz").items():
        ids = "mask" not in name
        out[name] = (
            rng.integers(2, VOCABULARY, (batch, tokens)).astype(value.dtype)
            if ids
            else np.ones((batch, tokens), value.dtype)
        )
    return out


def open_session(
    file: Path, plugin: Path | None, profile: str | None = None, *, graph: bool = False
) -> ort.InferenceSession:
    """In the CUDA provider, with the operators or without; captured and replayed as a CUDA graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if plugin is not None:
        options.register_custom_ops_library(str(plugin.resolve()))
    chosen = {"use_tf32": "1", **({"enable_cuda_graph": "1"} if graph else {})}
    found = ort.InferenceSession(str(file), options, providers=[(CUDA, chosen), CPU])
    if found.get_providers()[0] != CUDA:
        raise SystemExit("error: ONNX Runtime could not start its CUDA provider")
    return found


def bound(session: ort.InferenceSession, inputs: dict[str, np.ndarray]) -> Callable[[], Any]:
    """A run whose inputs and outputs stay on the device."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    for output in session.get_outputs():
        if all(isinstance(dim, int) for dim in output.shape):  # where a CUDA graph finds them again
            dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[output.type]
            there = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, dtype, "cuda", 0)
            binding.bind_ortvalue_output(output.name, there)
        else:
            binding.bind_output(output.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def nodes(file: Path, plugin: Path | None, inputs: dict[str, np.ndarray]) -> dict[str, int]:
    """Nodes of one run on the GPU, on the CPU, and copies between them."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(file, plugin, str(Path(folder) / "profile"))
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    counts: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            copies = event["args"].get("op_name", "").startswith("Memcpy")
            counts["copies" if copies else event["args"].get("provider", "")] += 1
    return {"gpu": counts[CUDA], "cpu": counts[CPU], "copies": counts["copies"]}


def rivals(
    name: str, inputs: dict[str, np.ndarray], compiled: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Eager sdpa and torch.compile of the same encoder, where PyTorch and transformers are."""
    try:
        import torch
        from transformers import T5Config, T5EncoderModel
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    width, inner, heads, layers = MODELS[name]
    settings = T5Config(
        d_model=width, d_ff=inner, num_heads=heads, num_layers=layers, vocab_size=VOCABULARY, d_kv=64
    )
    torch.manual_seed(0)
    model = T5EncoderModel(settings).eval().cuda()
    ids = torch.from_numpy(next(value for key, value in inputs.items() if "mask" not in key)).long().cuda()
    mask = torch.ones_like(ids)

    def runner(encoder: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> None:
            with torch.no_grad():
                encoder(input_ids=ids, attention_mask=mask)
            torch.cuda.synchronize()

        return run

    yield "eager PyTorch", runner(model)
    if compiled:
        yield "torch.compile", runner(torch.compile(model))


def measure(folder: Path, size: str, plugin: Path | None, runs: int, compiled: bool) -> dict[str, Any]:
    """All candidates of one size in turn."""
    name, tokens, batch = size.split(":")
    inputs = feed(folder / name, int(batch), int(tokens))
    runners: dict[str, Callable[[], Any]] = {}
    rows: dict[str, dict[str, Any]] = {}
    outputs: dict[str, np.ndarray] = {}
    for number, label in enumerate(MERGES):
        file = folder / name / str(number) / "model.onnx"
        for way, library in (("functions", None), ("operator", plugin)):
            if (label == "unmerged" and library) or (way == "operator" and plugin is None):
                continue
            key = label if label == "unmerged" else f"{label}, {way}"
            session = open_session(file, library)
            outputs[key] = session.run(None, inputs)[0]
            runners[key] = bound(session, inputs)
            rows[key] = {"nodes": nodes(file, library, inputs)}
            if way == "operator":
                twin = outputs[f"{label}, functions"].reshape(len(outputs[key]), -1)
                apart = np.abs(outputs[key].reshape(twin.shape) - twin).max(1) / np.abs(twin).max(1)
                rows[key] |= {"apart_median": float(np.median(apart)), "apart_most": float(apart.max())}
            static = static_file(file.parent, size)
            for graph in (False, True) if static.exists() else ():
                own = f"{key}, one shape" + (", CUDA graph" if graph else "")
                runners[own] = bound(open_session(static, library, graph=graph), inputs)
                rows[own] = {} if graph else {"nodes": nodes(static, library, inputs)}
    for key, run in rivals(name, inputs, compiled):
        runners[key], rows[key] = run, {}
    seconds: dict[str, list[float]] = {key: [] for key in runners}
    repeats = {}
    for key, run in runners.items():
        for _ in range(3):
            run()
        start = time.perf_counter()
        run()
        repeats[key] = max(1, int(0.03 / (time.perf_counter() - start)))
    for _ in range(runs):
        for key, run in runners.items():
            start = time.perf_counter()
            for _ in range(repeats[key]):
                run()
            seconds[key].append((time.perf_counter() - start) / repeats[key])
    for key, row in rows.items():
        times = seconds[key]
        row["ms"] = 1e3 * statistics.median(times)
        pairs = zip(seconds["unmerged"], times, strict=True)
        row["speedup"] = statistics.median(base / own for base, own in pairs)
    return {"size": size, "runs": runs, "rows": rows}


def load_cuda() -> None:
    """CUDA's libraries from PyTorch's wheels or NVIDIA's, where they are not in the system's folders."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401 (loads its own)


def card() -> str:
    """The GPU and its driver."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown card"


def show(result: dict[str, Any]) -> None:
    """One size as a Markdown table."""
    print(f"\n{result['size']} (model:tokens:batch), medians of {result['runs']} in turn\n")
    print("| | ms | speed-up | GPU / CPU nodes, copies | operators and functions apart: median, most |")
    print("|---|---:|---:|---|---|")
    for key, row in result["rows"].items():
        counts = row.get("nodes")
        told = f"{counts['gpu']} / {counts['cpu']}, {counts['copies']}" if counts else ""
        apart = f"{row['apart_median']:.1e}, {row['apart_most']:.1e}" if "apart_most" in row else ""
        print(f"| {key} | {row['ms']:.2f} | {row['speedup']:.2f} | {told} | {apart} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="export the files")
    one.add_argument("folder", type=Path)
    one.add_argument("--models", default=",".join(MODELS))
    one.add_argument("--sizes", default=SIZES, help="made for one shape, too")
    one.add_argument("--without-weights", action="store_true")
    two = commands.add_parser("run", help="time them on a GPU")
    two.add_argument("folder", type=Path)
    two.add_argument("--plugin", type=Path, help="libtsmerge_ort_cuda.so; without it only functions run")
    two.add_argument("--sizes", default=SIZES)
    two.add_argument("--runs", type=int, default=9)
    two.add_argument("--compile", action="store_true", help="torch.compile too (takes a minute a size)")
    two.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.folder, args.models.split(","), args.sizes.split(","), args.without_weights)
        return
    load_cuda()
    print(f"{card()}, onnxruntime {ort.__version__}, TF32")
    for file in sorted(args.folder.glob("*/*/model.onnx")):
        fill(file)
    results = []
    for size in args.sizes.split(","):
        results.append(measure(args.folder, size, args.plugin, args.runs, args.compile))
        show(results[-1])
        if args.json is not None:
            entry = {"card": card(), "onnxruntime": ort.__version__, "results": results}
            args.json.write_text(json.dumps(entry, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
