"""The library behind the command line: export a model as a verified bundle, validate a bundle again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from tsmerge_export import families
from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle, BundleWriter, check_output
from tsmerge_export.checkpoint import IN_MEMORY, LoadedModel, load_model
from tsmerge_export.compile.build import Built, build
from tsmerge_export.compile.hand_over import build_for
from tsmerge_export.compile.onnx_export import DEFAULT_OPSET, EXAMPLE
from tsmerge_export.compile.shared_weights import share
from tsmerge_export.console.progress import NoProgress, Progress, Stopwatch
from tsmerge_export.demo import SAMPLE_SERIES
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.families import plugins
from tsmerge_export.graphs.export import export_graph, validate_graph
from tsmerge_export.graphs.model import GraphOptions, is_graph_file
from tsmerge_export.merge.apply import plan_of, refuse_where_nothing_merges, remove
from tsmerge_export.merge.default import Settled, settle
from tsmerge_export.report.html import report_page
from tsmerge_export.report.model_card import model_card
from tsmerge_export.report.text import REPORT_ONLY, json_text, report_dict
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import cost, example, forms, generation, parity, remarks
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import Table, need_rows, read_table
from tsmerge_export.verify.decoded import decoded_by, forecasts_by
from tsmerge_export.version import versions


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
    atol: float | None = None,
    rtol: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    force: bool = False,
    trust_remote_code: bool = False,
    target: Target | None = None,
    search: Mapping[str, Any] | None = None,
    graph: GraphOptions | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Export a model with merging, prove the result, measure its cost, write a bundle.

    Args:
        model: folder, hub id, ``.pt`` file, or an eager module of a known family; or any transformer as an ``.onnx`` or
            ``.pt2`` file.
        merge: settings; None is what the family says is safe, which may be not to merge (see
            :mod:`~tsmerge_export.merge.default`); the manifest's ``merge`` says what became of it, ``notes`` why.
        output: folder to make, or a function that names it after the method. force: replace a bundle that is there.
        family, config, trust_remote_code: see :func:`~tsmerge_export.checkpoint.load_model`.
        opset: 18 to 23; None is 18. An ``.onnx`` file keeps its own.
        inline: write merge functions in place, for runtimes that do not expand functions.
        data: series for the merge cost: a file, or a table of :func:`~tsmerge_export.tables.read.read_table`; the
            bundled sample series when None.
        atol, rtol: instead of the family's parity tolerance, see :mod:`~tsmerge_export.verify.tolerances`.
        threads: for ONNX Runtime. seed: of the parity corpus and of sampling.
        target: a runtime beside ONNX Runtime, see :class:`~tsmerge_export.backends.target.Target`.
        search: what `tsmerge tune` tried before it came to this setting (JSON-ready), for the report.
        graph: what an ``.onnx`` or ``.pt2`` file does not tell, see
            :class:`~tsmerge_export.graphs.model.GraphOptions`.
        progress: told about each step.

    Returns:
        The bundle, in place.

    Raises:
        VerdictError: parity failed; nothing is written, ``error.manifest`` holds the verdicts.
        UsageError, UnsupportedError, MissingDependencyError: the user can mend it; nothing is written.
    """
    progress = watch = Stopwatch(progress or NoProgress())
    checks = Checks(atol, rtol, threads, seed)
    target = target or Target()
    target.check(merge or MergeConfig(), inline=inline)
    if not callable(output):
        check_output(output, force)
    graph = graph or GraphOptions()
    if is_graph_file(model):
        assert isinstance(model, str | Path)
        no_effect(model, family=family, config=config, data=data, trust_remote_code=trust_remote_code)
        if opset is not None and Path(model).suffix.lower() == ".onnx":
            raise UsageError(
                f"--opset has no effect on {model}, which keeps its own (at least 18); leave it out"
            )
        if target.needs_more:
            raise UnsupportedError(
                f"{model}: --runtime {target.runtime} takes models of the families only, so far"
            )
        return export_graph(
            model, merge, graph, output=output, opset=opset, inline=inline, checks=checks, force=force,
            progress=progress,
        )  # fmt: skip
    if graph.given:
        raise UsageError(
            f"{graph.given[0]} is for .onnx and .pt2 files; a family knows its own tokens, leave it out"
        )
    opset = DEFAULT_OPSET if opset is None else opset
    table, loaded, settled = _inputs(
        model,
        merge,
        data,
        progress,
        family=family,
        config=config,
        trust_remote_code=trust_remote_code,
    )
    merge = settled.merge
    output = output(merge.method) if callable(output) else output
    with BundleWriter(output, force) as writer:
        chosen = families.get(loaded.family)
        built = [
            build(
                component, loaded.model, merge, opset=opset, inline=inline,
                folder=writer.path, scratch=writer.scratch, progress=progress,
            )
            for component in chosen.components(loaded.model)
        ]  # fmt: skip
        share([item.merged for item in built], writer.path)
        verdicts, shown = _verdicts(loaded, merge, built, table, checks, progress, show=True)
        manifest: dict[str, Any] = {
            "source": loaded.source,
            "family": loaded.family,
            "merge": merge.to_dict(),
            "notes": [] if settled.note is None else [settled.note],
            "opset": opset,
            "inline": inline,
            "components": [item.to_dict() for item in built],
            "pipeline": chosen.pipeline(loaded.model),
            "verdicts": verdicts,
            "versions": versions() | plugins.distribution(loaded.family),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "run": {
                "output": Path(output).name,
                "data": None if data is None else table.path,
                "table": table.options.words(),
                "atol": atol,
                "rtol": rtol,
                "threads": threads,
                "seed": seed,
                "target": target.flags(),
                "family": family,
                "config": None if config is None else str(config),
                "trust_remote_code": trust_remote_code,
                **native.run_entry(),
            },
            **shown,
            **({} if search is None else {"search": dict(search)}),
        }
        if not manifest["verdicts"]["parity"]["passed"]:
            first = next(iter(manifest["verdicts"]["parity"]["failures"]), "no row was compared")
            raise VerdictError(f"{loaded.source}: parity failed, no bundle is written: {first}", manifest)
        if target.needs_more:
            # Cross and decoder of Chronos-T5 have no engines: the forecaster runs them in ONNX Runtime.
            engines = [item for item in built if item.component.mergeable]
            manifest["target"] = build_for(
                target, loaded, merge, engines, folder=writer.path, scratch=writer.scratch,
                checks=checks, progress=progress,
            )  # fmt: skip
        progress.step("bundle")
        watch.stop()
        write_texts(writer.path, manifest | {"seconds": watch.seconds})
        return writer.commit({key: value for key, value in manifest.items() if key not in REPORT_ONLY})


def validate(
    directory: str | Path,
    model: str | Path | nn.Module,
    *,
    family: str | None = None,
    config: str | Path | None = None,
    data: str | Path | Table | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    trust_remote_code: bool = False,
    inputs: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Repeat both verdicts of a bundle against the model that it was made from.

    Args:
        directory: the bundle; its files must match its manifest. inputs: example for a graph, see
            :class:`~tsmerge_export.graphs.model.GraphOptions`. The others are as for :func:`export`.

    Returns:
        ``{"parity": ..., "cost": ...}`` as in the manifest. It does not raise for a failed verdict.

    Raises:
        UsageError: no bundle, a changed file, or a model of another family.
    """
    progress = progress or NoProgress()
    checks = Checks(atol, rtol, threads, seed)
    bundle = Bundle.open(directory)
    if is_graph_file(model):
        assert isinstance(model, str | Path)
        no_effect(model, family=family, config=config, data=data, trust_remote_code=trust_remote_code)
        return validate_graph(bundle, model, inputs=inputs, checks=checks, progress=progress)
    if inputs is not None:
        raise UsageError("--inputs is for .onnx and .pt2 files; leave it out")
    merge = MergeConfig.from_dict(bundle.manifest["merge"])
    table, loaded, _ = _inputs(
        model,
        merge,
        data,
        progress,
        family=family,
        config=config,
        trust_remote_code=trust_remote_code,
    )
    if loaded.family != bundle.manifest.get("family"):
        raise UsageError(
            f"{loaded.source} is a {loaded.family}, the bundle {directory} a {bundle.manifest.get('family')}"
        )
    inlined = bool(bundle.manifest.get("inline")) and merge.active
    if inlined:
        native.refuse("an inlined bundle")
    with TemporaryDirectory(prefix="tsmerge-") as folder:
        built = []
        for component in families.get(loaded.family).components(loaded.model):
            # Built anew: the unmerged rival, and a form that shows its decisions where the bundle's is inlined.
            fresh = build(
                component, loaded.model, merge, opset=bundle.manifest.get("opset", DEFAULT_OPSET), inline=False,
                folder=Path(folder), scratch=Path(folder), progress=progress,
            )  # fmt: skip
            file = bundle.component(component.name).file
            built.append(
                Built(component, fresh.unmerged, file, fresh.merged if inlined else None, fresh.report)
            )
        faults = forms.faults(bundle, plan_of(families.get(loaded.family), loaded.model, merge))
        return _verdicts(loaded, merge, built, table, checks, progress, faults=faults)[0]


def no_effect(source: str | Path, **given: object) -> None:
    """Refuse what only other models have. Raises UsageError."""
    for name, value in given.items():
        if value:
            raise UsageError(f"--{name.replace('_', '-')} has no effect on {source}; leave it out")


def _inputs(
    model: str | Path | nn.Module,
    merge: MergeConfig | None,
    data: str | Path | Table | None,
    progress: Progress,
    **options: Any,
) -> tuple[Table, LoadedModel, Settled]:
    """Read what the user gave, and refuse it before any slow step."""
    table = data if isinstance(data, Table) else read_table(SAMPLE_SERIES if data is None else data)
    progress.step("load")
    loaded = _load(model, **options)
    family = families.get(loaded.family)
    if merge is not None:
        refuse_where_nothing_merges(family, loaded.model, merge)
    horizon = family.horizon(loaded.model)
    if data is None and len(table.values) < 2 * horizon:
        table = _longer_sample(3 * horizon)
    need_rows(table.name, len(table.values), horizon, horizon)
    settled = settle(merge, family, loaded.model)
    settled.merge.check_turns(len(settled.merge.select_layers(family.merge_points(loaded.model).count)))
    return table, loaded, settled


def _longer_sample(rows: int) -> Table:
    """The bundled sample series, generated for more rows: the default must not be too short for a model."""
    from tsmerge_export.demo import series

    return Table(f"{SAMPLE_SERIES.name}, generated for {rows} rows", series.COLUMNS, series.make(rows))


def _load(
    model: str | Path | nn.Module, *, family: str | None, config: str | Path | None, trust_remote_code: bool
) -> LoadedModel:
    if isinstance(model, str | Path):
        return load_model(model, family=family, config=config, trust_remote_code=trust_remote_code)
    found, core = families.for_model(model)
    if family is not None and family != found.name:
        raise UsageError(f"the model is a {found.name}, not a {family}")
    if any(
        tensor.is_floating_point() and str(tensor.dtype) != "torch.float32" for tensor in core.parameters()
    ):
        raise UsageError("the model is not float32; export model.float()")
    return LoadedModel(remove(core).eval(), found.name, found.config_of(core), IN_MEMORY)


def _verdicts(
    loaded: LoadedModel,
    merge: MergeConfig,
    built: Sequence[Built],
    table: Table,
    checks: Checks,
    progress: Progress,
    show: bool = False,
    faults: Sequence[str] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The verdicts, and with ``show`` what the report shows beside them; ``faults`` of no component fail parity."""
    family = families.get(loaded.family)
    progress.step("parity")
    reports = [
        parity.check(
            family, item.component, loaded.model, merge, item.merged, checks, avoid=EXAMPLE,
            with_decisions=item.decisions, plan=plan_of(family, loaded.model, merge),
            progress=progress.update,
        )
        for item in built[:1]
    ]  # fmt: skip
    if len(built) > 1:
        reports.append(generation.check(family, loaded.model, merge, built, checks, progress=progress.update))
    verdicts: dict[str, Any] = {"parity": parity.combine(reports, faults).to_dict()}
    # A forecast starts at the first component; with a failed parity its cost means nothing.
    if merge.active and verdicts["parity"]["passed"]:
        progress.step("cost")
        first = built[0]
        measured = cost.measure(
            family, first.component, loaded.model, first.unmerged, first.merged, table, checks,
            with_decisions=first.decisions, progress=progress.update,
            forecast=decoded_by(family, loaded.model, built, checks),
        )  # fmt: skip
        verdicts["cost"] = measured.to_dict()
        told = remarks.beyond(merge, first.decisions or first.merged, family.context(loaded.model))
        verdicts["cost"]["notes"] += [note for note in (told, remarks.large(measured)) if note is not None]
    if not show or "cost" not in verdicts:
        return verdicts, {}
    progress.step("example")
    shown = example.make(
        family, first.component, loaded.model, first.unmerged, first.merged, table, measured, checks,
        forecasts=forecasts_by(family, loaded.model, built, checks), with_decisions=first.decisions,
    )  # fmt: skip
    return verdicts, {"example": shown}


def write_texts(folder: Path, manifest: dict[str, Any], sizes: Mapping[str, int] | None = None) -> None:
    """Write ``report.json`` and the model card of a bundle.

    Args:
        sizes: batch and lengths at which a graph from a file is known to run.
    """
    from tsmerge_export.onnx_model.inspect import inspect_file

    size: dict[str, int] = {}
    if sizes is not None:
        lengths = [size for dim, size in sizes.items() if dim != "batch"]
        size = {"batch": sizes.get("batch", 1), "length": max(lengths, default=1)}
    try:
        tokens = [inspect_file(folder / part["file"], **size) for part in manifest["components"]]
    except UnsupportedError:
        if sizes is None:
            raise
        tokens = []  # one number is not enough to describe its inputs
    report = report_dict({**manifest, "tokens": tokens})
    texts = {
        "report.json": json_text(report),
        "report.html": report_page(report),
        "README.md": model_card(manifest, tokens),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
