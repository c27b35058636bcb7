"""`tsmerge bench` without its flags: sources in, rows of figures out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.backends.onnxruntime.profile import merge_share
from tsmerge_export.bundle import MANIFEST, Bundle
from tsmerge_export.console.progress import NoProgress, Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.model import GraphOptions
from tsmerge_export.inspection.flops import count, of_one_shape, without_merging
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench.candidate import UNMERGED
from tsmerge_export.tools.bench.group import Group, bundle_name, of_bundle, of_model
from tsmerge_export.tools.bench.run import Timing, interleave
from tsmerge_export.verify.data import Table

#: Sizes that are measured where nobody names others.
BATCHES, LENGTHS = (1, 8), (512,)


@dataclass(frozen=True)
class Row:
    """One candidate at one size.

    Attributes:
        group: the model, or the bundle that stands alone. candidate: its name.
        batch, length: series per call, steps per series. threads: of the candidate.
        runs: timed. p50_ms, p90_ms, p99_ms: milliseconds per call. series_per_second: batch by the median.
        peak_mib: largest resident memory of the candidate's own process, with its libraries, in MiB.
        ratio: how many times as fast as unmerged ONNX Runtime, the median over neighbouring runs; fastest: the same of
            the fastest runs.
        gflops: billions of operations in the matrix products of one call of an ONNX file. flop_ideal: ratio of the
            unmerged file's to them. efficiency: ratio by flop_ideal.
        merge_share: share of ONNX Runtime's time that merging takes.
        error: why there are no figures.
    """

    group: str
    candidate: str
    batch: int
    length: int
    threads: int
    runs: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    series_per_second: float | None = None
    peak_mib: float | None = None
    ratio: float | None = None
    fastest: float | None = None
    gflops: float | None = None
    flop_ideal: float | None = None
    efficiency: float | None = None
    merge_share: float | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def _add_bundle(path: str, groups: Sequence[Group]) -> None:
    bundle = Bundle.open(path)
    mine = [s for s in groups if s.family == bundle.contents.family]
    if len(mine) != 1:
        wanted = "exactly one" if mine else "a"
        raise UsageError(
            f"{path}: is a bundle; name {wanted} {bundle.contents.family} model beside it, to compare with"
        )
    info = bundle.component(mine[0].component)
    mine[0].add_merged(
        bundle_name(bundle, path), bundle.path / info.file, bundle.merge, bundle.contents.one_shape
    )


def earlier_rows(path: str | None, settings: dict[str, Any]) -> list[Row]:
    """Rows that an interrupted run with the same settings left in its JSON; none where there is no such file.

    Raises:
        UsageError: not such a file, or of a run with other settings.
    """
    if path is None or not Path(path).exists():
        return []
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        before = content["settings"]
        rows = [Row(**row) for row in content["rows"]]
    except (OSError, ValueError, TypeError, KeyError):
        raise UsageError(f"--json {path}: not the result of a bench; leave out --resume") from None
    other = sorted(name for name in settings if before.get(name) != settings[name])
    if other:
        raise UsageError(f"--json {path}: of a run with another {', '.join(other)}; leave out --resume")
    return rows


def series_of(table: Table, batch: int, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """``[batch, length]`` float32 from a table: the ends of its columns in turn, repeated where they are too short."""
    rows = []
    for number in range(batch):
        column = table.values[:, number % table.values.shape[1]]
        turn = number // table.values.shape[1]
        rows.append(np.roll(np.resize(column, max(length, len(column))), -turn * 17)[-length:])
    return np.asarray(rows, np.float32)


def bench(
    sources: Sequence[str],
    merge: MergeConfig,
    *,
    table: Table,
    batches: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    threads: Sequence[int] = (1,),
    rivals: Sequence[str] = ("eager",),
    runs: int = 20,
    seconds: float = 60.0,
    options: dict[str, Any] | None = None,
    graph: GraphOptions | None = None,
    progress: Progress | None = None,
    done: Sequence[Row] = (),
    told: Callable[[list[Row]], None] | None = None,
    place: Place = HERE,
) -> tuple[list[Row], list[str]]:
    """Time models and bundles against each other and against their rivals.

    Args:
        sources: models (folder, hub id, ``.pt``, ``.onnx``, ``.pt2``) and bundles; a bundle is compared with the model
            of its family, or, where no model is named, stands alone.
        merge: settings with which the models are exported; ``none`` for the rivals alone.
        table: series to run on (what dynamic merging removes depends on them).
        batches, lengths, threads: every combination is measured; lengths in steps. None are :data:`BATCHES` and
            :data:`LENGTHS`; where a bundle is of one shape, that.
        rivals: names of :data:`~tsmerge_export.tools.bench.candidate.RIVALS`; unmerged ONNX Runtime always runs.
        runs, seconds: see :func:`~tsmerge_export.tools.bench.run.interleave`.
        options: for :func:`~tsmerge_export.checkpoint.load_model`. graph: for ``.onnx`` and ``.pt2`` files.
        progress: told about each step.
        done: rows of an earlier run with the same settings; their sizes are not measured again.
        told: called after every size with the rows so far.
        place: of the files in ONNX Runtime; rivals run on the CPU.

    Returns:
        The rows, and notes on what was left out.

    Raises:
        UsageError: a bundle of another family than the models, or lengths that no model reads.
    """
    progress = progress or NoProgress()
    bundles = [s for s in sources if (Path(s) / MANIFEST).is_file()]
    models = [s for s in sources if s not in bundles]
    rows: list[Row] = []
    notes: list[str] = []
    with TemporaryDirectory(prefix="tsmerge-bench-") as scratch:
        root = Path(scratch)
        groups = [
            of_model(
                source, merge, rivals, root / str(number), options or {}, graph or GraphOptions(), progress
            )
            for number, source in enumerate(models)
        ]
        for path in bundles:
            if models:
                _add_bundle(path, groups)
            else:
                groups.append(of_bundle(path))
        notes += dict.fromkeys(note for group in groups for note in group.notes)
        others = [c.name for group in groups for c in group.candidates if c.kind != UNMERGED]
        if others and not place.on_cpu:
            notes.append(f"{' and '.join(dict.fromkeys(others))}: run on the CPU, the files in {place}")
        progress.step("bench")
        shapes = [c.shape for group in groups for c in group.candidates if c.shape is not None]
        batches = batches or sorted({batch for batch, _ in shapes}) or BATCHES
        lengths = lengths or sorted({length for _, length in shapes}) or LENGTHS
        sizes = []
        for group in groups:
            for length in lengths:
                refusal = group.refusal(length)
                if refusal is not None:
                    notes.append(f"length {length}: {refusal}; left out")
                    continue
                for batch in batches:
                    here = group.at(batch, length)
                    left = [one.name for one in group.candidates if one not in here]
                    notes += [f"batch {batch}, length {length}: {name}; left out" for name in left]
                    sizes += [(group, batch, length, t) for t in threads if here]
        if not sizes:
            raise UsageError(
                f"--batch {','.join(map(str, batches))}, --length {','.join(map(str, lengths))}: {notes[-1]}"
            )
        for number, (group, batch, length, count_of_threads) in enumerate(sizes):
            size = (group.name, batch, length, count_of_threads)
            known = [row for row in done if (row.group, row.batch, row.length, row.threads) == size]
            if {row.candidate for row in known} == {candidate.name for candidate in group.at(batch, length)}:
                rows += known
                continue

            def update(turn: int, turns: int, before: int = number, total: int = len(sizes)) -> None:
                progress.update(before * turns + turn, total * turns)

            rows += _measure(
                group, table, batch, length, count_of_threads, root, runs, seconds, update, place
            )
            if told is not None:
                told(rows)
    return rows, notes


def _measure(
    group: Group,
    table: Table,
    batch: int,
    length: int,
    threads: int,
    folder: Path,
    runs: int,
    seconds: float,
    update: Any,
    place: Place,
) -> list[Row]:
    inputs = group.inputs(series_of(table, batch, length))
    stored = folder / "inputs.npz"
    np.savez(stored, **inputs)  # type: ignore[arg-type]
    timings = interleave(
        group.at(batch, length),
        group.component,
        stored,
        threads,
        runs=runs,
        seconds=seconds,
        place=place,
        progress=update,
    )
    base = next((t for t in timings if t.candidate.name == UNMERGED and t.seconds), None)
    base_flops = None
    if base is not None:
        counted = count(onnx_weights.read(Path(base.candidate.source)), inputs)
        base_flops = None if counted.uncounted else counted.total  # of a file with fused operators
    return [_row(timing, base, base_flops, inputs, batch, length, threads, place) for timing in timings]


def _row(
    timing: Timing,
    base: Timing | None,
    base_flops: int | None,
    inputs: Arrays,
    batch: int,
    length: int,
    threads: int,
    place: Place,
) -> Row:
    candidate, times = timing.candidate, timing.seconds
    size = (candidate.group, candidate.name, batch, length, threads)
    if timing.error is not None or not times:
        return Row(*size, error=timing.error or "no run was timed")
    p50, p90, p99 = (float(v) for v in np.percentile(times, (50, 90, 99)))
    found: dict[str, Any] = {
        "runs": len(times),
        "p50_ms": 1e3 * p50,
        "p90_ms": 1e3 * p90,
        "p99_ms": 1e3 * p99,
        "series_per_second": batch / p50,
        "peak_mib": None if timing.peak is None else timing.peak / 2**20,
    }
    if base is not None:
        found["ratio"] = statistics.median(b / t for b, t in zip(base.seconds, times, strict=False))
        found["fastest"] = min(base.seconds) / min(times)
    if candidate.name == UNMERGED and base_flops is not None:
        found["gflops"] = base_flops / 1e9
    if candidate.merged:
        file, inputs = Path(candidate.source), candidate.fed(inputs)
        found["merge_share"] = merge_share(file, inputs, threads, place)
        model = onnx_weights.read(file)
        flops = count(model, inputs).total
        found["gflops"] = flops / 1e9
        # Alone, not inlined, and of any shape: counted with nothing removed.
        if base_flops is None and model.functions and not of_one_shape(model):
            base_flops = count(without_merging(model), inputs).model
        if base_flops is not None:
            found["flop_ideal"] = base_flops / flops
        if base_flops is not None and "ratio" in found:
            found["efficiency"] = found["ratio"] / found["flop_ideal"]
    return Row(*size, **found)
