"""The page's commands are the arguments of the export: whatever a run was given, the parser reads it back."""

from __future__ import annotations

import ast
import dataclasses
import shlex
from typing import Any

import pytest

import tsmerge_export as tsm
from tests.report.html.command_lines import parsed
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Report, Run
from tsmerge_export.bundle.manifest import ComponentEntry, GraphEntry, OriginalEntry, TensorInfo
from tsmerge_export.bundle.search import Identity, Search, SearchRun
from tsmerge_export.bundle.verdicts import Cost, Speed, Verdicts
from tsmerge_export.checkpoint import IN_MEMORY
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.precision import precision_of
from tsmerge_export.cli.tables import table_options
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tables.options import TableOptions

MERGE = MergeConfig("dynamic", threshold=-0.5, k=3, layers=(0, 2))
OPTIONS = TableOptions(sep=";", decimal=",", dayfirst=False, freq="h", timestamp_column="t s", target="-load")
TABLE = tuple(OPTIONS.words())
TENSORRT = (
    "--runtime",
    "tensorrt",
    "--dtype",
    "fp16",
    "--max-shapes",
    "context:8x512",
    "--plugin",
    "a lib.so",
)
PRECISION = ("--precision", "int8", "--keep-precise", "a b", "--max-increase", "1%")
#: What every kind of source may be given.
SHARED = Run(output="out of it", atol=1e-3, rtol=2e-4, threads=2, seed=7, native="/a b/libtsmerge_ort.so")
FAMILY = dataclasses.replace(
    SHARED, data="my data.csv", table=TABLE, target=TENSORRT, family="chronos-bolt", config="c.json",
    trust_remote_code=True,
)  # fmt: skip
GRAPH = dataclasses.replace(
    SHARED,
    token_mask="m",
    protect_first=1,
    protect_last=2,
    inputs="x y.npz",
    providers="CUDAExecutionProvider,CPUExecutionProvider",
    plugin="a lib.so",
    precision=PRECISION,
)
ODD = Run(output="-out", data="-x.csv", seed=0)

#: Kind of source -> its name, family and run.
KINDS: dict[str, tuple[str, str, Run]] = {
    "folder": ("./a folder", "chronos-t5", FAMILY),
    "hub id": ("amazon/chronos-bolt-tiny", "chronos-bolt", FAMILY),
    "weights": ("m.pt", "patchtst", FAMILY),
    "plug-in": ("mine", "point-encoder", dataclasses.replace(FAMILY, family="point-encoder", target=())),
    "onnx": ("a model.onnx", "onnx", GRAPH),
    "ONNX": ("A.ONNX", "onnx", dataclasses.replace(GRAPH, opset=None, protect_first=0)),
    "program": ("a.pt2", "onnx", GRAPH),
    "nothing given": ("plain", "chronos-bolt", Run()),
    "minus": ("-model", "chronos-bolt", ODD),
    "minus onnx": ("-m.onnx", "onnx", Run(output="-out", inputs="-x.npz", token_mask="-m")),
}  # fmt: skip


def report(source: str, family: str, run: Run, **more: Any) -> Report:
    inputs = (TensorInfo("x", "float32", ("batch", "length")),)
    graph = GraphEntry(run.token_mask, run.protect_first, run.protect_last) if family == "onnx" else None
    values: dict[str, Any] = {
        "components": (ComponentEntry("model", "model.onnx", inputs, ()),), "source": source, "family": family,
        "merge": MERGE.to_dict(), "opset": 20, "inline": True, "graph": graph, "run": run,
        "verdicts": Verdicts(None, Cost(speed=Speed(batch=8, length=96, unmerged_ms=2.0, merged_ms=1.0, ratio=2.0))),
    }  # fmt: skip
    return Report(**values | more)


def read_back(args: Any, run: Run) -> Run:
    """The run that a parsed command asks for."""
    flags = {"output": args.output} if hasattr(args, "output") else {"output": run.output}
    other = {"output", "table", "target", "native", "opset", "precision"} | (
        {"plugin"} if run.target else set()
    )
    for field in dataclasses.fields(Run):
        if field.name not in other:  # a runtime's own plug-in is among its flags
            flags[field.name] = getattr(args, field.name, getattr(run, field.name))
    if flags["providers"] is not None:
        flags["providers"] = ",".join(flags["providers"])
    return dataclasses.replace(run, **flags)


@pytest.mark.parametrize("kind", KINDS)
def test_the_parser_reads_back_what_was_asked_for(kind: str) -> None:
    source, family, run = KINDS[kind]
    content = report(source, family, run)
    given = dict(commands(content))
    place = source if kind[:5] != "minus" else f"./{source}"
    for what in ("export", "repeat the verdicts"):
        args = parsed(given[what])
        assert args.model == place
        assert read_back(args, run) == run
        assert table_options(args) == (OPTIONS if run.table else TableOptions())
    args = parsed(given["export"])
    assert merge_config(args) == MERGE
    assert args.inline
    # A file in ONNX keeps its own operator set, and refuses the flag.
    assert args.opset == (None if source.lower().endswith(".onnx") else 20)
    asked = Target(args.runtime, args.dtype).runtime
    assert asked == ("tensorrt" if run.target else "onnxruntime")
    for flag, value in zip(run.target[::2], run.target[1::2], strict=True):
        assert getattr(args, flag[2:].replace("-", "_")) == value
    assert precision_of(args) == (tsm.Precision("int8", ("a b",), 1.0) if run.precision else None)
    # What such a model refuses is not on the page.
    tuned = given.get("find a better setting")
    assert (tuned is None) == (family == "onnx" or run.data is None)
    if tuned is not None:
        args = parsed(tuned)
        assert (args.models, args.data, args.family) == ([place], run.data, run.family)
        assert table_options(args) == (OPTIONS if run.table else TableOptions())
    for what in ("where it merges", "speed over batches"):
        args = parsed(given[what])
        where = args.path if what.startswith("where") else args.sources[0]
        assert where == (f"./{run.output}" if run.output.startswith("-") else run.output)
    assert args.length == [96] or args.length == (96,)
    assert report_page(content).count("<code") >= len(given)


def test_no_argument_of_a_run_is_forgotten() -> None:
    """Whichever field of a run changes, a command changes with it."""
    for kind in ("folder", "onnx"):
        source, family, run = KINDS[kind]
        before = commands(report(source, family, run))
        for field in dataclasses.fields(Run):
            value = getattr(run, field.name)
            usual = field.default if field.default is not dataclasses.MISSING else ()
            if value == usual:
                continue  # nothing that this kind is given
            changed = dataclasses.replace(run, **{field.name: usual})
            assert commands(report(source, family, changed)) != before, field.name
    given = {
        name for run in (FAMILY, GRAPH) for name, value in vars(run).items() if value != getattr(Run(), name)
    }
    assert {field.name for field in dataclasses.fields(Run)} - given == {
        "opset"
    }  # the report's own is written


def test_of_a_model_in_memory() -> None:
    run = dataclasses.replace(FAMILY, family=None, config=None, trust_remote_code=False)
    given = dict(commands(report(IN_MEMORY, "chronos-bolt", run)))
    calls: list[Any] = []

    class Stub:
        MergeConfig, Target = tsm.MergeConfig, tsm.Target

        @staticmethod
        def export(model: Any, merge: MergeConfig, **options: Any) -> None:
            calls.append((merge, options))

    first, _, call = given["export"].partition("; ")
    assert first == "import tsmerge_export as tsm"
    eval(call, {"tsm": Stub, "model": None})
    ((merge, options),) = calls
    target = options.pop("target")
    assert merge == MERGE and tuple(target.flags()) == TENSORRT
    assert options == {
        "output": "out of it", "data": "my data.csv", "atol": 1e-3, "rtol": 2e-4, "threads": 2, "seed": 7, "opset": 20,
        "inline": True,
    }  # fmt: skip
    assert shlex.join(TABLE) in call
    again = ast.parse(given["repeat the verdicts"]).body[1]
    assert isinstance(again, ast.Expr) and isinstance(again.value, ast.Call)
    assert {k.arg for k in again.value.keywords} == {"data", "atol", "rtol", "threads", "seed"}
    assert not any(command.startswith("tsmerge tune") for command in given.values())


def test_of_a_model_that_was_compared_with_its_original() -> None:
    for place, beside in (("whole", "whole"), ("-whole", "./-whole")):
        original = OriginalEntry(place, "0" * 64)
        given = dict(commands(report("half", "chronos-bolt", FAMILY, original=original)))
        for what in ("export", "repeat the verdicts"):
            assert parsed(given[what]).original == beside
        assert parsed(given["find a better setting"]).models == [beside, "half"]
    # In memory, it is a variable beside the model's.
    for source, name in ((IN_MEMORY, "whole"), ("half", IN_MEMORY)):
        given = dict(commands(report(source, "chronos-bolt", FAMILY, original=OriginalEntry(name, ""))))
        assert ", original=original" in given["export"]
        assert ", original=original" in given["repeat the verdicts"]


def test_of_a_search() -> None:
    identity = Identity(("a model", "-b"), "mse", ("load", "x y"), 4, 128, 20)
    search = Search(identity, 2.5, run=SearchRun("my data.csv", TABLE, 90.0, threads=2, seed=5))
    run = dataclasses.replace(FAMILY, target=())
    given = dict(commands(report("a model", "chronos-bolt", run, search=search)))
    args = parsed(given["search the setting again"])
    assert (args.models, args.metric, args.max_increase, args.budget) == (
        ["a model", "./-b"],
        "mse",
        2.5,
        90.0,
    )
    assert (args.batch, args.length, args.windows, args.threads, args.seed) == (4, 128, 20, 2, 5)
    assert (args.column, args.data, args.sep, args.output) == (
        ("load", "x y"),
        "my data.csv",
        ";",
        "out of it",
    )
    assert (args.family, args.config, args.trust_remote_code) == ("chronos-bolt", "c.json", True)
    assert "find a better setting" not in given
