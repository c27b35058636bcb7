"""The commands on report.html: of every kind of source, the real parser reads each, and those that cost little run."""

from __future__ import annotations

import ast
import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.quick import quick_verdicts
from tests.report.html.bundles import bundle, report, search, series
from tests.report.html.command_lines import parsed, run_as_printed
from tests.report.html.reading import part, read
from tsmerge_export.backends import target as targets
from tsmerge_export.cli import main, main_export
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig

Capture = pytest.CaptureFixture[str]


def check(content: dict[str, Any]) -> dict[str, str]:
    """All commands, each in the language that it is in; and the page shows them as they are."""
    given = commands(content)
    assert len(dict(given)) == len(given)
    for what, command in given:
        if command.startswith("pip install"):
            assert re.fullmatch(r"pip install ([\w.-]+==[\w.]+ )*\.", command), command
        elif command.startswith("export TSMERGE_ORT_PLUGIN="):
            assert len(shlex.split(command)) == 2
        elif command.startswith(("import tsmerge_export as tsm; tsm.export(", "from tsmerge_export")):
            ast.parse(command)
        else:
            assert parsed(command).run is not None, what
    shown = [element.text for element in part(read(report_page(content)), "again").all("code")]
    assert [command for _, command in given] == shown
    return dict(given)


@pytest.fixture
def graph(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an ONNX file and an example of its inputs; few cases for its parity."""
    folder = tmp_path_factory.mktemp("graph")
    monkeypatch.chdir(folder)
    graphs.export("bert", folder / "a model.onnx")
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 90, (2, 24))
    np.savez("example.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    return folder


def test_of_an_onnx_file_all_commands_run(graph: Path, capsys: Capture) -> None:
    flags = [
        "--protect-first",
        "1",
        "--token-mask",
        "attention_mask",
        "--inputs",
        "example.npz",
        "--atol",
        "1e-3",
    ]
    assert main_export(["a model.onnx", "--ratio", "1/3", *flags, "--threads", "1", "-o", "out"]) == 0
    content = json.loads((graph / "out" / "report.json").read_text())
    given = check(content)
    args = parsed(given["export"])
    assert merge_config(args) == MergeConfig(ratio="1/3")
    assert (args.model, args.protect_first, args.protect_last) == ("a model.onnx", 1, 0)
    assert (args.token_mask, args.inputs, args.atol) == ("attention_mask", "example.npz", 1e-3)
    assert (args.opset, args.data, args.output) == (None, None, "out")
    assert not any(" tune " in command for command in given.values())
    assert content["seconds"]["parity"] > 0
    assert main_export([*shlex.split(given["export"])[1:-2], "-o", "again"]) == 0
    for what in ("repeat the verdicts", "where it merges", "speed over batches"):
        short = ["--runs", "1", "--length", "24"] if what.startswith("speed") else []
        assert main(shlex.split(given[what])[1:] + short) == 0, what
    capsys.readouterr()


def test_of_a_program_file() -> None:
    """Its operator set is the export's choice; an example that the user gave is needed again."""
    content = copy.deepcopy(report("chronos-bolt"))
    content |= {"source": "a.pt2", "family": "onnx", "graph": {"token_mask": None, "protect_last": 2}}
    content["run"] = {"output": "o", "inputs": "x.npz", "token_mask": "none", "seed": 3}
    args = parsed(check(content)["export"])
    assert (args.opset, args.inputs, args.token_mask, args.protect_last) == (18, "x.npz", "none", 2)
    assert (args.seed, args.data) == (3, None)


@pytest.mark.parametrize("source", ["amazon/chronos-bolt-tiny", "./a folder", "m.pt"])
def test_of_a_family(source: str) -> None:
    content = copy.deepcopy(report("chronos-bolt"))
    content["source"] = source
    own = {"family": "chronos-bolt", "config": "c.json", "trust_remote_code": True, "atol": 1e-3, "seed": 0}
    content["run"] |= own
    given = check(content)
    for what in ("export", "repeat the verdicts", "find a better setting"):
        args = parsed(given[what])
        assert (args.family, args.config, args.trust_remote_code) == ("chronos-bolt", "c.json", True)
        assert args.data == str(series())
    del content["run"]["data"]
    assert "find a better setting" not in check(content)


def test_cheap_commands_of_a_family_run(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    made = bundle("chronos-bolt")
    monkeypatch.chdir(made.parent)
    quick_verdicts(monkeypatch)
    given = check(report("chronos-bolt"))
    for what in ("repeat the verdicts", "where it merges", "speed over batches"):
        short = ["--runs", "1"] if what.startswith("speed") else []
        assert main(shlex.split(given[what])[1:] + short) == 0, what
    assert "alone, there is nothing to compare it with" in capsys.readouterr().out


def test_of_a_family_for_tensorrt() -> None:
    content = copy.deepcopy(report("chronos-bolt"))
    flags = [
        "--runtime",
        "tensorrt",
        "--dtype",
        "fp16",
        "--min-shapes",
        "context:1x16",
        "--plugin",
        "a lib.so",
    ]
    content["run"]["target"] = flags
    args = parsed(check(content)["export"])
    assert (args.runtime, args.dtype, args.min_shapes, args.plugin) == (*flags[1::2],)
    content["source"] = "a model in memory"
    found = _called(check(content)["export"])[1]["target"]
    want = targets.Target("tensorrt", "fp16", ({"context": (1, 16)}, None, None), plugin=Path("a lib.so"))
    assert (found.runtime, found.dtype, found.shapes) == (want.runtime, want.dtype, want.shapes)
    assert found.flags() == want.flags() == flags


def _called(command: str) -> tuple[MergeConfig, dict[str, Any]]:
    """The arguments of a command in Python."""
    calls: list[Any] = []

    class Stub:
        MergeConfig = MergeConfig
        Target = tsm.Target

        @staticmethod
        def export(model: Any, merge: MergeConfig, **options: Any) -> None:
            calls.append((merge, options))

    first, _, call = command.partition("; ")
    assert first == "import tsmerge_export as tsm"
    eval(call, {"tsm": Stub, "model": None})
    ((merge, options),) = calls
    return merge, options


def test_of_a_model_in_memory() -> None:
    content = copy.deepcopy(report("chronos-bolt"))
    content["source"] = "a model in memory"
    content["run"]["rtol"] = 1e-3
    given = check(content)
    merge, options = _called(given["export"])
    assert merge == MergeConfig(ratio="1/4")
    wanted = {"data": str(series()), "threads": 1, "seed": 3, "rtol": 1e-3}
    assert {name: options[name] for name in wanted} == wanted
    validate = ast.parse(given["repeat the verdicts"]).body[1]
    assert isinstance(validate, ast.Expr)
    assert isinstance(validate.value, ast.Call)
    assert {k.arg: ast.literal_eval(k.value) for k in validate.value.keywords} == wanted
    assert not any("MODEL" in command for command in given.values())


def test_of_a_search() -> None:
    found = search()
    found["identity"] |= {"columns": ["first", "the second"], "models": ["small", "a big one"]}
    content = {**report("chronos-bolt"), "search": found}
    content["run"] = {**content["run"], "family": "chronos-bolt"}
    args = parsed(check(content)["search the setting again"])
    assert args.column == ("first", "the second")
    assert (args.family, args.models) == ("chronos-bolt", ["small", "a big one"])


def test_versions_that_an_index_has() -> None:
    """Local builds (``+cpu``) are on no index; the package of a plug-in family is installed too."""
    content = copy.deepcopy(report("chronos-bolt"))
    content["versions"] = {
        "tsmerge-export": "0.1.0",
        "python": "3.11",
        "torch": "2.13.0+cpu",
        "my-family": "1.0",
    }
    assert check(content)["the versions"] == "pip install torch==2.13.0 my-family==1.0 ."


def test_the_library_of_native_operators_is_where_it_was() -> None:
    content = copy.deepcopy(report("chronos-bolt"))
    content["run"]["native"] = "/a place/libtsmerge_ort.so"
    words = shlex.split(check(content)["native operators"])
    assert words == ["export", "TSMERGE_ORT_PLUGIN=/a place/libtsmerge_ort.so"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a model.onnx", "a program.pt2"])
def test_of_a_graph_all_run_as_printed(name: str, graph: Path, capsys: Capture) -> None:
    if name.endswith(".pt2"):
        graphs.save_program("bert", graph / name)
    flags = ["--protect-first", "1", "--ratio", "1/3", "--seed", "3"]
    if name.endswith(".pt2"):
        flags += ["--opset", "20", "--token-mask", "none"]
    else:
        flags += ["--inputs", "example.npz", "--token-mask", "attention_mask"]
    assert main_export([name, *flags, "-o", "out"]) == 0
    made = tsm.Bundle.open("out").manifest
    ended = run_as_printed(Path("out"))
    assert ended == dict.fromkeys(
        ("export", "repeat the verdicts", "where it merges", "speed over batches"), 0
    )
    again = tsm.Bundle.open("out").manifest
    for key in ("merge", "graph", "opset", "components"):
        assert again[key] == made[key], key
    assert again["files"]["model.onnx"] == made["files"]["model.onnx"]
    assert "length" in capsys.readouterr().out
