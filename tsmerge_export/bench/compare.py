"""`tsmerge bench` without its flags: sources in, rows of figures out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tsmerge_export import families, onnx_weights
from tsmerge_export.bench.candidate import Candidate
from tsmerge_export.bench.profile import merge_share
from tsmerge_export.bench.run import Timing, interleave
from tsmerge_export.build import Built, build
from tsmerge_export.bundle import MANIFEST, Bundle
from tsmerge_export.checkpoint import LoadedModel, load_model
from tsmerge_export.config import MergeConfig
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Arrays
from tsmerge_export.flops import count
from tsmerge_export.merge.apply import refuse_where_nothing_merges
from tsmerge_export.merge.default import settle
from tsmerge_export.onnx_export import DEFAULT_OPSET
from tsmerge_export.progress import NoProgress, Progress
from tsmerge_export.validate.data import Table

UNMERGED = "onnxruntime"
MERGED = "onnxruntime, merged"


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


@dataclass
class Subject:
    """What shares one input: a model with its candidates, or a bundle that stands alone."""

    name: str
    family: families.base.Family
    loaded: LoadedModel
    component: families.base.Component
    candidates: list[Candidate] = field(default_factory=list)
    note: str | None = None


def first_only(family: families.base.Family, model: Any) -> str | None:
    """What a user must know about times where a model has more components than the one that is timed."""
    parts = [part.name for part in family.components(model)]
    if len(parts) == 1:
        return None
    return (
        f"{family.name}: times, FLOPs and speed-ups are those of the {parts[0]} alone, where tokens merge; a whole "
        f"forecast also runs {' and '.join(parts[1:])}"
    )


def _subject(
    source: str,
    merge: MergeConfig,
    rivals: Sequence[str],
    folder: Path,
    options: dict[str, Any],
    progress: Progress,
) -> Subject:
    progress.step("load")
    loaded = load_model(source, **options)
    family = families.get(loaded.family)
    refuse_where_nothing_merges(family, loaded.model, merge)
    settled = settle(merge, family, loaded.model)
    merge = settled.merge
    component = family.components(loaded.model)[0]
    subject = Subject(source, family, loaded, component, note=settled.note)
    folder.mkdir()
    built: Built = build(
        component, loaded.model, merge, opset=DEFAULT_OPSET, inline=False, folder=folder, scratch=folder,
        progress=progress,
    )  # fmt: skip
    plain = str(built.unmerged)
    subject.candidates.append(Candidate(UNMERGED, "onnxruntime", source, plain, {}))
    for rival in rivals:
        if rival in ("eager", "compile"):
            name = "eager sdpa" if rival == "eager" else "torch.compile"
            subject.candidates.append(Candidate(name, rival, source, source, options))
        elif rival == "openvino":
            subject.candidates.append(Candidate("openvino", rival, source, plain, {}))
    if merge.active:
        subject.candidates.append(
            Candidate(MERGED, "onnxruntime", source, str(built.merged), {}, merged=True)
        )
    return subject


def _add_bundle(path: str, subjects: Sequence[Subject]) -> None:
    bundle = Bundle.open(path)
    mine = [s for s in subjects if s.loaded.family == bundle.manifest.get("family")]
    if len(mine) != 1:
        wanted = "exactly one" if mine else "a"
        raise UsageError(
            f"{path}: is a bundle; name {wanted} {bundle.manifest.get('family')} model beside it, to compare with"
        )
    info = bundle.component(mine[0].component.name)
    merge = MergeConfig.from_dict(bundle.manifest["merge"])
    name = f"bundle {path}"
    file = str(bundle.path / info.file)
    mine[0].candidates.append(Candidate(name, "onnxruntime", mine[0].name, file, {}, merged=merge.active))


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
    batches: Sequence[int] = (1, 8),
    lengths: Sequence[int] = (512,),
    threads: Sequence[int] = (1,),
    rivals: Sequence[str] = ("eager",),
    runs: int = 20,
    seconds: float = 60.0,
    options: dict[str, Any] | None = None,
    progress: Progress | None = None,
    done: Sequence[Row] = (),
    told: Callable[[list[Row]], None] | None = None,
) -> tuple[list[Row], list[str]]:
    """Time models and bundles against each other and against their rivals.

    Args:
        sources: models (folder, hub id, ``.pt``) and bundles; a bundle is compared with the model of its family.
        merge: settings with which the models are exported; ``none`` for the rivals alone.
        table: series to run on (what dynamic merging removes depends on them).
        batches, lengths, threads: every combination is measured; lengths in steps.
        rivals: names of :data:`~tsmerge_export.bench.candidate.RIVALS`; unmerged ONNX Runtime always runs.
        runs, seconds: see :func:`~tsmerge_export.bench.run.interleave`.
        options: for :func:`~tsmerge_export.checkpoint.load_model`.
        progress: told about each step.
        done: rows of an earlier run with the same settings; their sizes are not measured again.
        told: called after every size with the rows so far.

    Returns:
        The rows, and notes on what was left out.

    Raises:
        UsageError: no model, a bundle without its model, or lengths that no model reads.
    """
    progress = progress or NoProgress()
    bundles = [s for s in sources if (Path(s) / MANIFEST).is_file()]
    models = [s for s in sources if s not in bundles]
    if not models:
        raise UsageError(f"{bundles[0]}: is a bundle; name its model too, to compare with")
    rows: list[Row] = []
    notes: list[str] = []
    with TemporaryDirectory(prefix="tsmerge-bench-") as scratch:
        root = Path(scratch)
        subjects = [
            _subject(source, merge, rivals, root / str(number), options or {}, progress)
            for number, source in enumerate(models)
        ]
        for path in bundles:
            _add_bundle(path, subjects)
        notes += [f"{subject.name}: {subject.note}" for subject in subjects if subject.note is not None]
        notes += [n for n in dict.fromkeys(first_only(s.family, s.loaded.model) for s in subjects) if n]
        progress.step("bench")
        sizes = []
        for subject in subjects:
            longest = subject.family.context(subject.loaded.model)
            for length in lengths:
                if length > longest:
                    notes.append(f"length {length}: {subject.name} reads at most {longest} steps; left out")
                    continue
                sizes += [(subject, b, length, t) for b in batches for t in threads]
        if not sizes:
            raise UsageError(f"--length {','.join(map(str, lengths))}: {notes[-1]}")
        for number, (subject, batch, length, count_of_threads) in enumerate(sizes):
            place = (subject.name, batch, length, count_of_threads)
            known = [row for row in done if (row.group, row.batch, row.length, row.threads) == place]
            if {row.candidate for row in known} == {candidate.name for candidate in subject.candidates}:
                rows += known
                continue

            def update(turn: int, turns: int, before: int = number, total: int = len(sizes)) -> None:
                progress.update(before * turns + turn, total * turns)

            rows += _measure(subject, table, batch, length, count_of_threads, root, runs, seconds, update)
            if told is not None:
                told(rows)
    return rows, notes


def _measure(
    subject: Subject,
    table: Table,
    batch: int,
    length: int,
    threads: int,
    folder: Path,
    runs: int,
    seconds: float,
    update: Any,
) -> list[Row]:
    inputs = subject.component.from_series(subject.loaded.model, series_of(table, batch, length))
    stored = folder / "inputs.npz"
    np.savez(stored, **inputs)  # type: ignore[arg-type]
    timings = interleave(
        subject.candidates,
        subject.component.name,
        stored,
        threads,
        runs=runs,
        seconds=seconds,
        progress=update,
    )
    base = next((t for t in timings if t.candidate.name == UNMERGED and t.seconds), None)
    base_flops = None if base is None else count(onnx_weights.read(Path(base.candidate.source)), inputs).total
    return [_row(timing, base, base_flops, inputs, batch, length, threads) for timing in timings]


def _row(
    timing: Timing,
    base: Timing | None,
    base_flops: int | None,
    inputs: Arrays,
    batch: int,
    length: int,
    threads: int,
) -> Row:
    candidate, times = timing.candidate, timing.seconds
    place = (candidate.group, candidate.name, batch, length, threads)
    if timing.error is not None or not times:
        return Row(*place, error=timing.error or "no run was timed")
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
        file = Path(candidate.source)
        found["merge_share"] = merge_share(file, inputs, threads)
        flops = count(onnx_weights.read(file), inputs).total
        found["gflops"] = flops / 1e9
        if base_flops is not None:
            found["flop_ideal"] = base_flops / flops
            found["efficiency"] = found["ratio"] / found["flop_ideal"]
    return Row(*place, **found)
