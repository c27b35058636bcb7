"""The commands that make a bundle again, from its report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tsmerge_export.checkpoint import IN_MEMORY
from tsmerge_export.config import OPTIONS, MergeConfig
from tsmerge_export.runtimes.native import VARIABLE
from tsmerge_export.version import NATIVE

# Written also where they are the defaults: the page should say how much was merged.
_ALWAYS = ("k", "ratio", "r", "threshold")
_NOT_INSTALLED = ("python", "tsmerge-export", NATIVE)
_GENERAL = ("min_tokens", "layers", "positions", "causal", "metric", "prop_attn")


def merge_flags(merge: Mapping[str, Any]) -> list[str]:
    """The flags of ``tsmerge-export`` for merge settings as ``MergeConfig.to_dict()`` gives them."""
    method = merge["method"]
    out = ["--merge", method]
    if method == "none":
        return out
    usual = MergeConfig(method=method).to_dict()
    for name in (*sorted(OPTIONS[method]), *_GENERAL):
        value = merge.get(name)
        if value is None or value is False or (name not in _ALWAYS and value == usual[name]):
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            out.append(flag)
            continue
        written = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        # A value that begins with a minus sign would be read as a flag.
        out += [f"{flag}={written}"] if written.startswith("-") else [flag, written]
    return out


def commands(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to run, as (what it does, command). A model that was given in memory is exported from Python."""
    run = report.get("run") or {}
    source, output = str(report.get("source")), str(run.get("output") or "bundle")
    shared = _shared(run)
    versions = report.get("versions") or {}
    out = [("the versions", _install(versions))]
    if NATIVE in versions:
        out.append((NATIVE, f"export {VARIABLE}={versions[NATIVE].split(',')[0]}"))
    search = report.get("search")
    if search:
        out.append(("search the setting again", _tune(search, output)))
    if source == IN_MEMORY:
        out.append(("export", _python(report, output)))
        source = "MODEL"
    else:
        words = ["tsmerge-export", source, *merge_flags(report["merge"])]
        if report.get("opset") is not None:
            words += ["--opset", str(report["opset"])]
        if report.get("inline"):
            words.append("--inline")
        out.append(("export", shlex.join([*words, *shared, *run.get("target", ()), "-o", output])))
    out += [
        ("repeat the verdicts", shlex.join(["tsmerge", "validate", output, source, *shared])),
        ("where it merges", shlex.join(["tsmerge", "inspect", output])),
        ("speed over batches and lengths", shlex.join(["tsmerge", "bench", output, "--batch", "1,8"])),
    ]
    if not search and report["merge"]["method"] != "none":
        data = run.get("data") or "series.csv"
        tune = [
            "tsmerge",
            "tune",
            source,
            "--data",
            str(data),
            *(run.get("table") or ()),
            "--max-increase",
            "3%",
        ]
        out.append(("find a better setting", shlex.join(tune)))
    return out


def _shared(run: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name in ("data", "atol", "rtol", "threads"):
        if run.get(name) is not None:
            words += [f"--{name}", str(run[name])]
    words += run.get("table") or ()
    return [*words, "--seed", str(run["seed"])] if run.get("seed") else words


def _install(found: Mapping[str, str]) -> str:
    names = [f"{name}=={value}" for name, value in found.items() if name not in _NOT_INSTALLED]
    return shlex.join(["pip", "install", *names, "."])


def _python(report: Mapping[str, Any], output: str) -> str:
    usual = MergeConfig(method=report["merge"]["method"]).to_dict()
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in report["merge"].items()
        if name == "method" or (value is not None and value != usual[name])
    }
    given = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    options = {
        **{
            name: value
            for name, value in (report.get("run") or {}).items()
            if name in ("data", "threads", "seed")
        },
        "opset": report.get("opset"),
        "inline": report.get("inline") or None,
    }
    more = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
    target = (report.get("run") or {}).get("target")
    note = f"  # with target=Target(...) for {shlex.join(target)}" if target else ""
    table = (report.get("run") or {}).get("table")
    note += (
        f"  # with data=read_table(..., options=TableOptions(...)) for {shlex.join(table)}" if table else ""
    )
    return f"tsm.export(model, tsm.MergeConfig({given}), output={output!r}{more}){note}"


def _tune(search: Mapping[str, Any], output: str) -> str:
    identity, run = search["identity"], search.get("run") or {}
    words = ["tsmerge", "tune", *identity["models"], "--data", str(run.get("data") or "series.csv")]
    words += run.get("table") or ()
    words += ["--max-increase", f"{search['max_increase_percent']:g}%", "--metric", identity["metric"]]
    if run.get("budget_seconds"):
        words += ["--budget", f"{run['budget_seconds']:g}s"]
    for name in ("batch", "length", "windows"):
        if identity.get(name) is not None:
            words += [f"--{name}", str(identity[name])]
    for name in ("threads", "seed"):
        if run.get(name):
            words += [f"--{name}", str(run[name])]
    return shlex.join([*words, "-o", output])
