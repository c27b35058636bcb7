"""The commands that make a bundle again: what :class:`~tsmerge_export.bundle.run.Run` holds, as flags."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tsmerge_export.backends.engines.profile import parse_shapes
from tsmerge_export.backends.onnxruntime.native import NATIVE, VARIABLE
from tsmerge_export.backends.onnxruntime.place import SHORT
from tsmerge_export.backends.target import SHAPE_FLAGS as SHAPES
from tsmerge_export.bundle.report import Report, as_report
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.search import Search
from tsmerge_export.checkpoint import IN_MEMORY
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import FLAG as STATIC
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.settings.option import GENERAL, flag, text

GRAPH = "onnx"  # the family of models that come as a file
_NOT_INSTALLED = ("python", "tsmerge-export", NATIVE)


def merge_flags(merge: Mapping[str, Any]) -> list[str]:
    """The flags of ``tsmerge-export`` for merge settings as ``MergeConfig.to_dict()`` gives them."""
    method = merge["method"]
    out = ["--merge", method]
    if method == registry.NONE:
        return out
    usual = MergeConfig(method=method).to_dict()
    options = {option.name: option for option in registry.spec(method).options}
    for name in (*sorted(options), *GENERAL):
        value = merge.get(name)
        # How much was merged the page says also where it is the default.
        always = name in options and options[name].amount
        if value is None or value is False or (not always and value == usual[name]):
            continue
        if value is True:
            out.append(flag(name))
            continue
        out += _flag(flag(name), text(value))
    return out


def commands(content: Report | Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to run, as (what it does, command), in the folder where the export was run; each as it stands.

    A model that was given in memory is exported from Python. Where no data were named, there is nothing to search on.
    """
    report = as_report(content)
    run, source = report.run, str(report.source)
    original = None if report.original is None else report.original.source
    in_memory, is_file = IN_MEMORY in (source, original), report.family == GRAPH
    bundle, model = _place(run.output), _place(source)
    out = [("the versions", _install(report.versions))]
    if run.native:
        out.append((NATIVE, f"export {VARIABLE}={shlex.quote(run.native)}"))
    if report.search is not None:
        out.append(("search the setting again", _tune(report.search, run)))
    loading = [
        *_flag("--family", run.family), *_flag("--config", run.config),
        *(["--trust-remote-code"] if run.trust_remote_code else []),
    ]  # fmt: skip
    if in_memory:
        out += [("export", _python(report)), ("repeat the verdicts", _validate(report))]
    else:
        against = None if original is None else _place(original)
        checks = [*_flag("--inputs", run.inputs), *_flag("--data", run.data), *run.table]
        checks += [*_flag("--original", against), *_checks(run)]
        words = ["tsmerge-export", model, *merge_flags(report.merge), *loading, *_graph_flags(report)]
        if report.opset is not None and not source.lower().endswith(".onnx"):  # such a file keeps its own
            words += ["--opset", str(report.opset)]
        if report.inline:
            words.append("--inline")
        words += [*checks, *run.precision, *run.target, *_output(run.output)]
        again = ["tsmerge", "validate", bundle, model, *loading, *checks]
        out += [("export", shlex.join(words)), ("repeat the verdicts", shlex.join(again))]
    out += [
        ("where it merges", shlex.join(["tsmerge", "inspect", bundle])),
        ("speed over batches", shlex.join(["tsmerge", "bench", bundle, *_sizes(report), *_where(run)])),
    ]
    if run.data and not (report.search or in_memory or is_file) and report.setting.active:
        beside = [] if original is None else [_place(original)]
        tune = [
            "tsmerge",
            "tune",
            *beside,
            model,
            *_flag("--data", run.data),
            *run.table,
            *loading,
            *_where(run),
        ]
        tune += ["--max-increase", "3%"]
        out.append(("find a better setting", shlex.join([*tune, *_output(f"{run.output}-tuned")])))
    return out


def _flag(name: str, value: object) -> list[str]:
    """A flag with its value, nothing where there is none; one that begins with a minus sign would be read as a flag."""
    if value is None:
        return []
    return [f"{name}={value}"] if str(value).startswith("-") else [name, str(value)]


def _output(name: str) -> list[str]:
    return [f"--output={name}"] if name.startswith("-") else ["-o", name]


def _place(name: str) -> str:
    """A file, folder or hub id as an argument that no parser takes for a flag."""
    return f"./{name}" if name.startswith("-") else name


def _checks(run: Run) -> list[str]:
    """The flags of how the verdicts are found."""
    out = [*_flag("--atol", run.atol), *_flag("--rtol", run.rtol), *_flag("--threads", run.threads)]
    return [*out, *_flag("--seed", run.seed or None), *_where(run)]


def _where(run: Run) -> list[str]:
    """The flags of where ONNX Runtime runs."""
    return [*_flag("--providers", run.providers), *_flag("--plugin", run.plugin)]


def _graph_flags(report: Report) -> list[str]:
    """What a file did not tell about its tokens."""
    graph, run = report.graph, report.run
    ends = (
        (run.protect_first, run.protect_last) if graph is None else (graph.protect_first, graph.protect_last)
    )
    out = _flag("--token-mask", run.token_mask)
    for name, value in zip(("--protect-first", "--protect-last"), ends, strict=True):
        out += _flag(name, value or None)
    return out


def _sizes(report: Report) -> list[str]:
    """Batches, and the length that the export was timed at: one that the model is known to run at."""
    if report.one_shape is not None:
        return []
    speed = None if report.verdicts.cost is None else report.verdicts.cost.speed
    inputs = report.components[0].inputs if report.components else ()
    varies = any(isinstance(dim, str) and dim != "batch" for tensor in inputs for dim in tensor.dims)
    return ["--batch", "1,8", *_flag("--length", speed.length if speed is not None and varies else None)]


def _install(found: Mapping[str, str]) -> str:
    """Without the local part of a version (``2.13.0+cpu``), which no package index has."""
    names = [
        f"{name}=={value.partition('+')[0]}" for name, value in found.items() if name not in _NOT_INSTALLED
    ]
    return shlex.join(["pip", "install", *names, "."])


def _options(report: Report) -> str:
    run = report.run
    providers = (
        None if run.providers is None else [SHORT.get(word, word) for word in run.providers.split(",")]
    )
    given = {
        "data": run.data,
        "atol": run.atol,
        "rtol": run.rtol,
        "threads": run.threads,
        "seed": run.seed or None,
        "providers": providers,
        "plugin": run.plugin,
    }
    original = "" if report.original is None else ", original=original"
    return original + "".join(f", {name}={value!r}" for name, value in given.items() if value is not None)


def _validate(report: Report) -> str:
    return (
        f"from tsmerge_export.api import validate; validate({report.run.output!r}, model{_options(report)})"
    )


def _python(report: Report) -> str:
    usual = MergeConfig(method=report.merge["method"]).to_dict()
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in report.merge.items()
        if name == "method" or (value is not None and value != usual[name])
    }
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    run = report.run
    options = {"opset": report.opset, "inline": report.inline or None}
    more = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
    note = (
        f"  # with data=read_table(..., options=TableOptions(...)) for {shlex.join(run.table)}"
        if run.table
        else ""
    )
    return (
        f"import tsmerge_export as tsm; tsm.export(model, tsm.MergeConfig({given}), "
        f"output={run.output!r}{_options(report)}{more}{_precision(run.precision)}{_target(run.target)}){note}"
    )


def _precision(flags: Sequence[str]) -> str:
    """The argument that asks for a precision, of the flags that do."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    if not given:
        return ""
    words = [repr(given["--precision"])]
    if "--keep-precise" in given:
        words.append(f"keep={tuple(given['--keep-precise'].split(','))!r}")
    if "--max-increase" in given:
        words.append(f"max_increase={float(given['--max-increase'].rstrip('%'))!r}")
    return f", precision=tsm.Precision({', '.join(words)})"


def _target(flags: Sequence[str]) -> str:
    """The argument that asks for a runtime, of the flags that do."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    if not given:
        return ""
    if STATIC in given:
        shape = OneShape.parse(given[STATIC])
        return f", target=tsm.Target(static=tsm.OneShape({shape.batch}, {shape.length}))"
    words = [f"runtime={given['--runtime']!r}", f"dtype={given['--dtype']!r}"]
    if any(flag in given for flag in SHAPES):
        shapes = tuple(parse_shapes(given[flag], flag) if flag in given else None for flag in SHAPES)
        words.append(f"shapes={shapes!r}")
    if "--compute-capability" in given:
        words.append(f"capabilities={tuple(given['--compute-capability'].split(','))!r}")
    if "--plugin" in given:
        words.append(f"plugin={given['--plugin']!r}")
    return f", target=tsm.Target({', '.join(words)})"


def _tune(search: Search, exported: Run) -> str:
    identity, run = search.identity, search.run
    words = ["tsmerge", "tune", *map(_place, identity.models), *_flag("--data", run.data or "series.csv")]
    words += run.table
    if identity.columns:
        words += _flag("--column", ",".join(identity.columns))
    words += [*_flag("--family", exported.family), *_flag("--config", exported.config)]
    words += ["--trust-remote-code"] if exported.trust_remote_code else []
    words += _where(exported)
    words += ["--max-increase", f"{search.max_increase_percent:g}%", "--metric", identity.metric]
    if run.budget_seconds:
        words += ["--budget", f"{run.budget_seconds:g}s"]
    if run.distill_seconds:
        words += ["--distill", f"{run.distill_seconds:g}s"]
    if run.precision is not None:
        words += ["--precision", ",".join(run.precision)]
    for name, value in (
        ("--batch", identity.batch),
        ("--length", identity.length),
        ("--windows", identity.windows),
    ):
        words += _flag(name, value)
    words += [*_flag("--threads", run.threads or None), *_flag("--seed", run.seed or None)]
    return shlex.join([*words, *_output(exported.output)])
