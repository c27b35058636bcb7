"""Merged against unmerged on a GPU, in ONNX Runtime's CUDA provider, in one interleaved run.

    python benchmarks/gpu.py prepare FOLDER [--models small,base] [--sizes base:512:8] [--without-weights]
    python benchmarks/gpu.py run FOLDER --plugin libtsmerge_ort_cuda.so [--sizes base:512:8] [--runs 9] [--json FILE]
    python benchmarks/gpu.py run FOLDER --plugin LIBRARY --dry-run --sizes tiny:64:2

T5 encoders of two published sizes, random weights: unmerged, and merged at N/4, N/2 and N/2 with compact positions,
each by the portable functions and by the native operators of `plugins/onnxruntime_cuda`, and made for that one shape
(`--static`) with a CUDA graph and without; with PyTorch there, eager sdpa and torch.compile of the same encoder too.
TF32 everywhere, inputs and outputs bound to the device. A size is MODEL:TOKENS:BATCH. `run` needs onnxruntime-gpu and
onnx; files prepared `--without-weights` get theirs from a seed there, so that little has to travel to a machine with a
GPU.

Prints medians and ratios to the unmerged file (of neighbouring turns), how many nodes run on the GPU, on the CPU and
copy between both, and how far operators and functions are apart, and names the card. A candidate that does not start
is named with the reason, and the others run. `--dry-run` goes through all of it on the CPU, with a library made for it
(see `plugins/onnxruntime_cuda`): it tries this file, its times mean nothing.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from gpu_files import MERGES, MODELS, PUBLISHED, SIZES, VOCABULARY, feed, fill, prepare, static_file

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@dataclass(frozen=True)
class Device:
    """Where candidates run: a provider of ONNX Runtime and its name for the memory."""

    provider: str
    memory: str


GPU, DRY = Device(CUDA, "cuda"), Device(CPU, "cpu")


def open_session(
    file: Path, plugin: Path | None, device: Device, profile: str | None = None, *, graph: bool = False
) -> ort.InferenceSession:
    """With the operators or without; captured and replayed as a CUDA graph."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if plugin is not None:
        options.register_custom_ops_library(str(plugin.resolve()))
    chosen = {"use_tf32": "1", **({"enable_cuda_graph": "1"} if graph else {})} if device is GPU else {}
    providers = list(dict.fromkeys([device.provider, CPU]))
    found = ort.InferenceSession(
        str(file), options, providers=providers, provider_options=[chosen, *({} for _ in providers[1:])]
    )
    if found.get_providers()[0] != device.provider:
        raise SystemExit("error: ONNX Runtime could not start its CUDA provider")
    return found


def bound(session: ort.InferenceSession, inputs: dict[str, np.ndarray], device: Device) -> Callable[[], Any]:
    """A run whose inputs and outputs stay on the device."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, device.memory, 0))
    for output in session.get_outputs():
        if all(isinstance(dim, int) for dim in output.shape):  # where a CUDA graph finds them again
            dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64}[output.type]
            there = ort.OrtValue.ortvalue_from_shape_and_type(output.shape, dtype, device.memory, 0)
            binding.bind_ortvalue_output(output.name, there)
        else:
            binding.bind_output(output.name, device.memory)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def nodes(file: Path, plugin: Path | None, inputs: dict[str, np.ndarray], device: Device) -> dict[str, int]:
    """Nodes of one run on the GPU, on the CPU, and copies between them."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(file, plugin, device, str(Path(folder) / "profile"))
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    counts: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            copies = event["args"].get("op_name", "").startswith("Memcpy")
            counts["copies" if copies else event["args"].get("provider", "")] += 1
    return {"gpu": counts[CUDA], "cpu": counts[CPU], "copies": counts["copies"]}


def rivals(
    name: str, inputs: dict[str, np.ndarray], compiled: bool, device: Device
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Eager sdpa and torch.compile of the same encoder, where PyTorch and transformers are."""
    try:
        import torch
        from transformers import T5Config, T5EncoderModel
    except ImportError:
        return
    torch.backends.cuda.matmul.allow_tf32 = device is GPU
    width, inner, heads, layers = MODELS[name]
    settings = T5Config(
        d_model=width, d_ff=inner, num_heads=heads, num_layers=layers, vocab_size=VOCABULARY, d_kv=64
    )
    torch.manual_seed(0)
    model = T5EncoderModel(settings).eval().to(device.memory)
    ids = torch.from_numpy(next(value for key, value in inputs.items() if "mask" not in key))
    ids = ids.long().to(device.memory)
    mask = torch.ones_like(ids)

    def runner(encoder: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> None:
            with torch.no_grad():
                encoder(input_ids=ids, attention_mask=mask)
            if device is GPU:
                torch.cuda.synchronize()

        return run

    yield "eager PyTorch", runner(model)
    if compiled:
        yield "torch.compile", runner(torch.compile(model))


@dataclass
class Candidates:
    """Of one size: what is timed, by name, and what is known of each beside times."""

    inputs: dict[str, np.ndarray]
    device: Device
    runners: dict[str, Callable[[], Any]]
    rows: dict[str, dict[str, Any]]

    def add(self, key: str, start: Callable[[], tuple[Callable[[], Any], dict[str, Any]]]) -> None:
        """One that starts, and runs once; of another its reason stays."""
        try:
            run, row = start()
            run()
        except Exception as error:  # of ONNX Runtime, CUDA or PyTorch: no common base class
            self.rows[key] = {"error": str(error).strip().split("\n")[0][:300]}
            return
        self.runners[key], self.rows[key] = run, row

    def file(self, key: str, file: Path, library: Path | None, *, graph: bool = False) -> None:
        """A file in ONNX Runtime; as a CUDA graph its nodes are those without."""

        def start() -> tuple[Callable[[], Any], dict[str, Any]]:
            run = bound(open_session(file, library, self.device, graph=graph), self.inputs, self.device)
            return run, {} if graph else {"nodes": nodes(file, library, self.inputs, self.device)}

        self.add(key, start)


def apart(file: Path, plugin: Path, inputs: dict[str, np.ndarray], device: Device) -> dict[str, float]:
    """How far the operators' first output is from the functions', rows by their scale."""
    found, twin = (
        open_session(file, library, device).run(None, inputs)[0].reshape(-1) for library in (plugin, None)
    )
    rows = len(next(iter(inputs.values())))
    found, twin = found.reshape(rows, -1), twin.reshape(rows, -1)
    error = np.abs(found - twin).max(1) / np.abs(twin).max(1)
    return {"apart_median": float(np.median(error)), "apart_most": float(error.max())}


def measure(
    folder: Path, size: str, plugin: Path | None, runs: int, compiled: bool, device: Device
) -> dict[str, Any]:
    """All candidates of one size in turn."""
    name, tokens, batch = size.split(":")
    inputs = feed(folder / name, int(batch), int(tokens))
    found = Candidates(inputs, device, {}, {})
    for number, label in enumerate(MERGES):
        file = folder / name / str(number) / "model.onnx"
        for way, library in (("functions", None), ("operator", plugin)):
            if (label == "unmerged" and library) or (way == "operator" and plugin is None):
                continue
            key = label if label == "unmerged" else f"{label}, {way}"
            found.file(key, file, library)
            if library is not None and key in found.runners:
                found.rows[key] |= apart(file, library, inputs, device)
            static = static_file(file.parent, size)
            if static.exists():
                found.file(f"{key}, one shape", static, library)
                found.file(f"{key}, one shape, CUDA graph", static, library, graph=True)
    for key, run in rivals(name, inputs, compiled, device):
        found.add(key, lambda run=run: (run, {}))
    if "unmerged" not in found.runners:
        raise SystemExit(f"error: {size}: the unmerged file does not run: {found.rows['unmerged']['error']}")
    runners, rows = found.runners, found.rows
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
    for key, times in seconds.items():
        row = rows[key]
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
        if "error" in row:
            print(f"| {key} | does not run: {row['error']} | | | |", flush=True)
            continue
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
    one.add_argument("--models", default=",".join(PUBLISHED))
    one.add_argument("--sizes", default=SIZES, help="made for one shape, too")
    one.add_argument("--without-weights", action="store_true")
    two = commands.add_parser("run", help="time them on a GPU")
    two.add_argument("folder", type=Path)
    two.add_argument("--plugin", type=Path, help="libtsmerge_ort_cuda.so; without it only functions run")
    two.add_argument("--sizes", default=SIZES)
    two.add_argument("--runs", type=int, default=9)
    two.add_argument("--compile", action="store_true", help="torch.compile too (takes a minute a size)")
    two.add_argument("--json", type=Path)
    two.add_argument("--dry-run", action="store_true", help="on the CPU, to try this file")
    args = parser.parse_args()
    if args.command == "prepare":
        prepare(args.folder, args.models.split(","), args.sizes.split(","), args.without_weights)
        return
    device = DRY if args.dry_run else GPU
    if device is GPU:
        load_cuda()
    where = card() if device is GPU else "dry run on the CPU: no figure"
    print(f"{where}, onnxruntime {ort.__version__}, TF32", flush=True)
    for file in sorted(args.folder.glob("*/*/model.onnx")):
        fill(file)
    results = []
    for size in args.sizes.split(","):
        results.append(measure(args.folder, size, args.plugin, args.runs, args.compile, device))
        show(results[-1])
        if args.json is not None:
            entry = {"card": where, "onnxruntime": ort.__version__, "results": results}
            args.json.write_text(json.dumps(entry, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
