"""The commands that make a bundle again, from its report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tsmerge_export.backends.engines.profile import parse_shapes
from tsmerge_export.backends.onnxruntime.native import VARIABLE
from tsmerge_export.backends.target import SHAPE_FLAGS as SHAPES
from tsmerge_export.checkpoint import IN_MEMORY
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.option import GENERAL, flag, text
from tsmerge_export.version import NATIVE

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
        written = text(value)
        # A value that begins with a minus sign would be read as a flag.
        out += [f"{flag(name)}={written}"] if written.startswith("-") else [flag(name), written]
    return out


def commands(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to run, as (what it does, command), in the folder where the export was run; each as it stands.

    A model that was given in memory is exported from Python. Where no data were named, there is nothing to search on.
    """
    run = report.get("run") or {}
    source, output = str(report.get("source")), str(run.get("output") or "bundle")
    in_memory, is_file = source == IN_MEMORY, report.get("family") == GRAPH
    out = [("the versions", _install(report.get("versions") or {}))]
    if run.get("native"):
        out.append((NATIVE, f"export {VARIABLE}={shlex.quote(run['native'])}"))
    search = report.get("search")
    if search:
        out.append(("search the setting again", _tune(search, run, output)))
    if in_memory:
        out += [("export", _python(report, output)), ("repeat the verdicts", _validate(run, output))]
    else:
        model = _flags(run, ("family", "config", "trust_remote_code"))
        table = run.get("table") or ()
        checks = [*_flags(run, ("data",)), *table, *_flags(run, ("atol", "rtol", "threads", "seed"))]
        inputs = _flags(run, ("inputs",))
        words = ["tsmerge-export", source, *merge_flags(report["merge"]), *model, *_graph_flags(report)]
        if report.get("opset") is not None and not source.lower().endswith(
            ".onnx"
        ):  # such a file keeps its own
            words += ["--opset", str(report["opset"])]
        if report.get("inline"):
            words.append("--inline")
        out += [
            ("export", shlex.join([*words, *inputs, *checks, *run.get("target", ()), "-o", output])),
            (
                "repeat the verdicts",
                shlex.join(["tsmerge", "validate", output, source, *model, *inputs, *checks]),
            ),
        ]
    out += [
        ("where it merges", shlex.join(["tsmerge", "inspect", output])),
        ("speed over batches", shlex.join(["tsmerge", "bench", output, "--batch", "1,8", *_length(report)])),
    ]
    if run.get("data") and not (search or in_memory or is_file) and report["merge"]["method"] != "none":
        tune = ["tsmerge", "tune", source, "--data", str(run["data"]), *table, *model, "--max-increase", "3%"]
        out.append(("find a better setting", shlex.join([*tune, "-o", f"{output}-tuned"])))
    return out


def _flags(given: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The flags of what was given; what is not there, 0 or False was not."""
    words: list[str] = []
    for name in names:
        value = given.get(name)
        if value is None or value is False or (name == "seed" and not value):
            continue
        words += [flag(name)] if value is True else [flag(name), str(value)]
    return words


def _graph_flags(report: Mapping[str, Any]) -> list[str]:
    """What a file did not tell about its tokens."""
    graph = report.get("graph") or {}
    words = _flags(report.get("run") or {}, ("token_mask",))
    for name in ("protect_first", "protect_last"):
        if graph.get(name):
            words += _flags(graph, (name,))
    return words


def _length(report: Mapping[str, Any]) -> list[str]:
    """The length that the export was timed at: one that the model is known to run at."""
    speed = ((report.get("verdicts") or {}).get("cost") or {}).get("speed") or {}
    return ["--length", str(speed["length"])] if speed.get("length") and report.get("family") != GRAPH else []


def _install(found: Mapping[str, str]) -> str:
    """Without the local part of a version (``2.13.0+cpu``), which no package index has."""
    names = [
        f"{name}=={value.partition('+')[0]}" for name, value in found.items() if name not in _NOT_INSTALLED
    ]
    return shlex.join(["pip", "install", *names, "."])


def _options(run: Mapping[str, Any]) -> str:
    given = {name: run.get(name) for name in ("data", "atol", "rtol", "threads", "seed")}
    return "".join(f", {name}={value!r}" for name, value in given.items() if value not in (None, 0))


def _validate(run: Mapping[str, Any], output: str) -> str:
    return f"from tsmerge_export.api import validate; validate({output!r}, model{_options(run)})"


def _python(report: Mapping[str, Any], output: str) -> str:
    usual = MergeConfig(method=report["merge"]["method"]).to_dict()
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in report["merge"].items()
        if name == "method" or (value is not None and value != usual[name])
    }
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    run = report.get("run") or {}
    options = {"opset": report.get("opset"), "inline": report.get("inline") or None}
    more = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
    target = _target(run.get("target") or ())
    table = run.get("table")
    note = (
        f"  # with data=read_table(..., options=TableOptions(...)) for {shlex.join(table)}" if table else ""
    )
    return (
        f"tsm.export(model, tsm.MergeConfig({given}), output={output!r}{_options(run)}{more}{target}){note}"
    )


def _target(flags: Sequence[str]) -> str:
    """The argument that asks for a runtime, of the flags that do."""
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    if not given:
        return ""
    words = [f"runtime={given['--runtime']!r}", f"dtype={given['--dtype']!r}"]
    if any(flag in given for flag in SHAPES):
        shapes = tuple(parse_shapes(given[flag], flag) if flag in given else None for flag in SHAPES)
        words.append(f"shapes={shapes!r}")
    if "--compute-capability" in given:
        words.append(f"capabilities={tuple(given['--compute-capability'].split(','))!r}")
    if "--plugin" in given:
        words.append(f"plugin={given['--plugin']!r}")
    return f", target=tsm.Target({', '.join(words)})"


def _tune(search: Mapping[str, Any], exported: Mapping[str, Any], output: str) -> str:
    identity, run = search["identity"], search.get("run") or {}
    words = ["tsmerge", "tune", *identity["models"], "--data", str(run.get("data") or "series.csv")]
    words += run.get("table") or ()
    if identity.get("columns"):
        words += ["--column", ",".join(identity["columns"])]
    words += _flags(exported, ("family", "config", "trust_remote_code"))
    words += ["--max-increase", f"{search['max_increase_percent']:g}%", "--metric", identity["metric"]]
    if run.get("budget_seconds"):
        words += ["--budget", f"{run['budget_seconds']:g}s"]
    words += _flags(identity, ("batch", "length", "windows"))
    words += _flags({name: run.get(name) or None for name in ("threads", "seed")}, ("threads", "seed"))
    return shlex.join([*words, "-o", output])
