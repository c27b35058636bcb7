"""How long a file takes to load and to answer first, in every form that ONNX Runtime takes it.

    python benchmarks/loading.py [--threads 1] [--rounds 11] [--batch 8] [--length 1024] [--json FILE]

Forms: ``.onnx`` with its weights inside; with them in a file beside it (external data, which ONNX Runtime maps);
weights mapped by the caller and handed over (``add_external_initializers``); ``.ort``, written by ``tsmerge ort``.
Models: chronos-bolt-half-nano, merged as it was distilled for, in float32 and int8; and Chronos-Bolt small at its
published size with random weights, merged 1/10 per layer, in float32 and int8. Each measurement is a process of its
own that has imported ONNX Runtime and numpy; forms take turns, the figures are medians. Files are in the page cache.
Peak memory is that of the process. Runs on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table as RichTable

FORMS = ("onnx", "external data", "mapped weights", "ort")
_LEAST = 1024  # bytes of a weight that goes into a file


def write_external(file: Path, folder: Path) -> None:
    """The same model with its weights beside it: ``model.onnx`` and ``weights``."""
    model = onnx.load(file)
    where = folder / "model.onnx"
    onnx.save(model, where, save_as_external_data=True, location="weights", size_threshold=_LEAST)


def mapped_session(file: Path, options: Any) -> Any:
    """A session over weights that this process maps. ``file`` has external data."""
    import onnxruntime as ort

    model = onnx.load(file, load_external_data=False)
    arrays = {}
    for tensor in model.graph.initializer:
        at = {entry.key: entry.value for entry in tensor.external_data}
        if at:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            offset = int(at.get("offset", 0))
            arrays[tensor.name] = np.memmap(
                file.parent / at["location"], dtype, "c", offset, tuple(tensor.dims)
            )
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, values


def measure_here(order: Mapping[str, Any]) -> dict[str, float]:
    """One measurement: load, first call, further calls."""
    import onnxruntime as ort

    from tsmerge_export.tools.bench.worker import peak_bytes

    with np.load(order["inputs"]) as stored:
        feed = {name: stored[name] for name in stored.files}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = order["threads"]
    begin = time.perf_counter()
    if order["form"] == "mapped weights":
        session, kept = mapped_session(Path(order["file"]), options)
    else:
        session, kept = (
            ort.InferenceSession(order["file"], options, providers=["CPUExecutionProvider"]),
            None,
        )
    loaded = time.perf_counter()
    session.run(None, feed)
    first = time.perf_counter()
    calls = []
    for _ in range(5):
        start = time.perf_counter()
        session.run(None, feed)
        calls.append(time.perf_counter() - start)
    del kept
    return {
        "load": 1e3 * (loaded - begin),
        "first": 1e3 * (first - loaded),
        "call": 1e3 * statistics.median(calls),
        "peak": peak_bytes() / 2**20,
    }


def in_a_process(order: Mapping[str, Any]) -> dict[str, float]:
    """:func:`measure_here` in a fresh process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(order)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def models(folder: Path, args: argparse.Namespace) -> dict[str, tuple[Path, dict[str, Any]]]:
    """File and inputs by model."""
    import torch

    import tsmerge_export as tsm
    from tsmerge_export import demo, families
    from tsmerge_export.compile.checkpoint_source import CheckpointSource
    from tsmerge_export.compile.compilation import Compilation
    from tsmerge_export.compile.precision import quantise_files

    published = families.get("chronos-bolt").published
    assert published is not None
    torch.manual_seed(0)
    small = families.get("chronos-bolt").build(dict(published.config)).eval()
    half = CheckpointSource.load(demo.CHRONOS_BOLT.parent / "chronos-bolt-half-nano")
    assert half.trained is not None
    out = {}
    for name, source, merge in (
        ("chronos-bolt-half-nano, merged", half, half.trained.merge),
        (
            "Chronos-Bolt small, random weights, merged",
            CheckpointSource.load(small),
            tsm.MergeConfig(ratio="1/10"),
        ),
    ):
        where = folder / f"{len(out)}"
        (where / "int8").mkdir(parents=True)
        built = [Compilation(source, merge).merged(source.components[0], where)]
        low = quantise_files(built, tsm.Precision("int8"), where / "int8")[0]
        walks = np.random.default_rng(0).standard_normal((args.batch, args.length)).cumsum(axis=1)
        feed = source.feed(walks.astype(np.float32))
        out[f"{name}, float32"] = built[0].merged, feed
        out[f"{name}, int8"] = low[0].merged, feed
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(measure_here(json.loads(args.one))))
        return
    from tsmerge_export.tools.ort_format import convert
    from tsmerge_export.version import versions

    rows = []
    with tempfile.TemporaryDirectory(prefix="tsmerge-loading-") as name:
        folder = Path(name)
        for number, (title, (file, feed)) in enumerate(models(folder, args).items()):
            own = folder / f"forms-{number}"
            (own / "external").mkdir(parents=True)
            np.savez(own / "inputs.npz", **feed)
            write_external(file, own / "external")
            convert("model", file, own / "model.ort", threads=args.threads)
            external = own / "external" / "model.onnx"
            files = dict(zip(FORMS, (file, external, external, own / "model.ort"), strict=True))
            beside = (own / "external" / "weights").stat().st_size
            taken: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
            for turn in range(args.rounds):
                for form in FORMS if turn % 2 == 0 else FORMS[::-1]:
                    order = {"form": form, "file": str(files[form]), "inputs": str(own / "inputs.npz")}
                    taken[form].append(in_a_process({**order, "threads": args.threads}))
            for form, found in taken.items():
                row: dict[str, Any] = {"model": title, "form": form}
                row["bytes"] = files[form].stat().st_size + (beside if files[form] == external else 0)
                row |= {key: statistics.median(one[key] for one in found) for key in found[0]}
                rows.append(row)
            print(f"{title}: done", file=sys.stderr)
    if args.json is not None:
        args.json.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=2) + "\n")
    shown: Callable[[float], str] = "{:.1f}".format
    table = RichTable(title=f"batch {args.batch}, {args.length} steps, {args.rounds} rounds")
    for index, column in enumerate(("model", "form", "MB", "load ms", "first ms", "next ms", "peak MiB")):
        table.add_column(column, justify="left" if index < 2 else "right")
    for row in rows:
        figures = (row["load"], row["first"], row["call"], row["peak"])
        table.add_row(row["model"], row["form"], f"{row['bytes'] / 1e6:.2f}", *map(shown, figures))
    Console(width=160).print(table)
    known = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"{platform.machine()}, {os.cpu_count()} cores, threads {args.threads}, {known}")


if __name__ == "__main__":
    main()
