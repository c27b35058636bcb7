"""The library behind the command line: export a model as a verified bundle, validate a bundle again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from tsmerge_export.backends import Providers
from tsmerge_export.backends.onnxruntime.place import Place
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle, check_output
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.source import Source
from tsmerge_export.console.notes import note
from tsmerge_export.console.progress import NoProgress, Progress, Stopwatch
from tsmerge_export.eager.trained import settle_precision
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.graphs.model import GraphOptions, is_graph_file
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.precision.products import refuse_quantised
from tsmerge_export.report.write import write_texts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FLOAT32, Precision
from tsmerge_export.typed import written
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table


def export(
    model: str | Path | nn.Module,
    merge: MergeConfig | None = None,
    *,
    output: str | Path | Callable[[str], str | Path],
    family: str | None = None,
    config: str | Path | None = None,
    opset: int | None = None,
    inline: bool = False,
    data: str | Path | Table | None = None,
    original: str | Path | nn.Module | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    force: bool = False,
    trust_remote_code: bool = False,
    target: Target | None = None,
    search: Mapping[str, Any] | None = None,
    compression: Mapping[str, Any] | None = None,
    graph: GraphOptions | None = None,
    providers: Providers | None = None,
    plugin: str | Path | None = None,
    precision: Precision | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export a model with merging, prove the result, measure its cost, write a bundle.

    Args:
        model: folder, hub id, ``.pt`` file, or an eager module of a known family; or any transformer as an ``.onnx`` or
            ``.pt2`` file.
        merge: settings; None is what the weights were trained for, else what the family says is safe, which may be not
            to merge (see :mod:`~tsmerge_export.eager.default`); the manifest's ``merge`` says what became of it,
            ``notes`` why.
        output: folder to make, or a function that names it after the method. force: replace a bundle that is there.
        family, config, trust_remote_code: see :func:`~tsmerge_export.checkpoint.load_model`.
        opset: 18 to 23; None is 18. An ``.onnx`` file keeps its own.
        inline: write merge functions in place, for runtimes that do not expand functions.
        data: series for the merge cost: a file, or a table of :func:`~tsmerge_export.tables.read.read_table`; the
            bundled sample series when None.
        original: what merge cost, speed and forecasts are compared with, unmerged: for weights that were trained to
            merge the model that they were distilled from, as ``model`` may be given. It is of the same family, with the
            same horizon, context and quantile levels. None is ``model`` itself, unmerged. Parity is with ``model``
            merged either way.
        atol, rtol: instead of the family's parity tolerance, see :mod:`~tsmerge_export.verify.tolerances`.
        threads: for ONNX Runtime. seed: of the parity corpus and of sampling.
        target: a runtime beside ONNX Runtime, see :class:`~tsmerge_export.backends.target.Target`.
        search: what `tsmerge tune` tried before it came to this setting (JSON-ready), for the report. compression: what
            `tsmerge compress` did to the weights, likewise.
        graph: what an ``.onnx`` or ``.pt2`` file does not tell, see
            :class:`~tsmerge_export.graphs.model.GraphOptions`.
        providers, plugin: where ONNX Runtime runs what is proved and timed, and the library of native operators for it,
            as for :func:`tsmerge_export.load`. Parity is with PyTorch on the CPU wherever that is, in float32: CUDA's
            provider without TF32; times and merge cost are those of the providers as they come.
        precision: below float32, ONNX Runtime's quantiser makes the bundle's files of those that were proved, and what
            that costs is measured, see docs/precision.md. None is what the weights were trained for, else float32.
        progress: told about each step.

    Returns:
        The bundle, in place.

    Raises:
        VerdictError: parity or the precision failed; nothing is written, ``error.manifest`` holds the verdicts.
        UsageError, UnsupportedError, MissingDependencyError: the user can mend it; nothing is written.
    """
    watch = Stopwatch(progress or NoProgress())
    checks = Checks(atol, rtol, threads, seed, place=_place(providers, plugin))
    target = target or Target()
    target.check(merge or MergeConfig(), inline=inline, place=checks.place, precision=precision or FLOAT32)
    checks = replace(checks, place=target.proved_at(checks.place, inline=inline))
    if not callable(output):
        check_output(output, force)
    options: dict[str, Any] = {"family": family, "config": config, "trust_remote_code": trust_remote_code}
    if is_graph_file(model):
        _check_graph_options(model, target, opset, data=data, original=original, **options)
        source: Source = GraphSource(model, graph, opset=opset, progress=watch)
    else:
        if graph is not None and graph.given:
            raise UsageError(
                f"{graph.given[0]} is for .onnx and .pt2 files; a family knows its own tokens, leave it out"
            )
        source = CheckpointSource.load(
            model, opset=opset, data=data, original=original, progress=watch, **options
        )
    precision, said = settle_precision(
        precision, source.trained, lambda own: target.static is None and target.backend.low_precision
    )
    if precision.low and isinstance(source, GraphSource):
        refuse_quantised(source.model.original, source.name)
    compilation = Compilation(source, merge, inline=inline or target.inlined, progress=watch)
    target.check(
        compilation.merge, inline=inline, place=checks.place
    )  # what a checkpoint was trained for is known now
    return compilation.bundle(
        output, checks, texts=write_texts, force=force, target=target, search=search,
        compression=compression, precision=precision,
        notes=() if said is None else (said,),
    )  # fmt: skip


def validate(
    directory: str | Path,
    model: str | Path | nn.Module,
    *,
    family: str | None = None,
    config: str | Path | None = None,
    data: str | Path | Table | None = None,
    original: str | Path | nn.Module | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    inputs: str | Path | None = None,
    providers: Providers | None = None,
    plugin: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Repeat the verdicts of a bundle against the model that it was made from.

    Args:
        directory: the bundle; its files must match its manifest. inputs: example for a graph, see
            :class:`~tsmerge_export.graphs.model.GraphOptions`. The others are as for :func:`export`.
        original: what the bundle was compared with, where its manifest names that; a manifest's name is not followed.
            None compares with ``model`` unmerged.

    Returns:
        ``{"parity": ..., "cost": ..., "precision": ...}`` as in the manifest, what there is of them. It does not raise
        for a failed verdict.

    Raises:
        UsageError: no bundle, a changed file, a model of another family, or an original with other weights than the
            one that the bundle was compared with.
    """
    progress = progress or NoProgress()
    checks = Checks(atol, rtol, threads, seed, place=_place(providers, plugin))
    bundle = Bundle.open(directory)
    merge = bundle.merge
    options: dict[str, Any] = {"family": family, "config": config, "trust_remote_code": trust_remote_code}
    if is_graph_file(model):
        no_effect(model, data=data, original=original, **options)
        source: Source = GraphSource.of_bundle(bundle, model, inputs, progress)
    else:
        if inputs is not None:
            raise UsageError("--inputs is for .onnx and .pt2 files; leave it out")
        source = CheckpointSource.load(
            model, opset=bundle.contents.opset, data=data, original=original, progress=progress, **options
        )
        if source.family != bundle.contents.family:
            raise UsageError(
                f"{source.name} is a {source.family}, the bundle {directory} a {bundle.contents.family}"
            )
    compilation = Compilation(source, merge, progress=progress)
    if compilation.settled.note is not None:
        note(compilation.settled.note)
    _check_same_original(bundle, source)
    verdicts: dict[str, Any] = written(compilation.validate(bundle, checks))
    return verdicts


def _check_same_original(bundle: Bundle, source: Source) -> None:
    """Say that a bundle was compared with another model than the source is. Raises UsageError for another original."""
    before, now = bundle.contents.original, source.original
    if before is None:
        return
    if now is None:
        note(
            f"{bundle.path} was compared with {before.source}, unmerged, and is now with its own weights: "
            "--original names that model again"
        )
    elif now.entry.sha256 != before.sha256:
        raise UsageError(
            f"--original {now.entry.source}: has other weights than {before.source}, which {bundle.path} was compared "
            "with; give that model"
        )


def _place(providers: Providers | None, plugin: str | Path | None) -> Place:
    """Tried out: what does not start is said before any slow step."""
    place = Place.of(providers, plugin)
    place.try_out()
    return place


def no_effect(source: str | Path, **given: object) -> None:
    """Refuse what only other models have. Raises UsageError."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} has no effect on {source}; leave it out")


def _check_graph_options(model: str | Path, target: Target, opset: int | None, **given: object) -> None:
    """Refuse what a graph from a file does not have. Raises UsageError, UnsupportedError."""
    no_effect(model, **given)
    if opset is not None and Path(model).suffix.lower() == ".onnx":
        raise UsageError(f"--opset has no effect on {model}, which keeps its own (at least 18); leave it out")
    if target.needs_more and not target.backend.graphs:
        raise UnsupportedError(
            f"{model}: --runtime {target.runtime} takes models of the families only: it builds for the lengths that "
            "they read, which no graph says; use --runtime onnxruntime or openvino"
        )
