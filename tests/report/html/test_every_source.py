"""What a real export of every kind of source records: its page asks for what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.graphs import models as graphs
from tests.models import tiny, tiny_folder
from tests.quick import quick_verdicts
from tests.report.html.command_lines import parsed
from tests.report.manifests import assert_reported
from tsmerge_export import api
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.graphs.model import GraphOptions
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.config import MergeConfig

MERGE = MergeConfig(ratio="1/3", min_tokens=3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    quick_verdicts(monkeypatch)
    np.savetxt("series.csv", np.sin(np.arange(500) / 4), header="a", comments="")
    return tmp_path


def again(model: Any, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The report of an export, and the commands on its page."""
    made = api.export(model, MERGE, output="made", threads=1, seed=2, rtol=1e-3, **options)
    content = assert_reported(made.path)
    assert {"parity", "bundle"} < set(content["seconds"])
    return content, dict(commands(content))


def assert_asks(given: dict[str, str], model: str, **wanted: Any) -> None:
    """Both commands name the model and repeat the settings of the verdicts; ``export`` the rest, too."""
    export, validate = parsed(given["export"]), parsed(given["repeat the verdicts"])
    assert (export.model, export.output) == (model, "made")
    assert (validate.bundle, validate.model) == ("made", model)
    assert merge_config(export) == MERGE
    for args in (export, validate):
        assert (args.threads, args.seed, args.rtol, args.atol) == (1, 2, 1e-3, None)
    assert {name: getattr(export, name) for name in wanted} == wanted
    for what in ("where it merges", "speed over batches"):
        assert parsed(given[what]).run is not None


def test_a_checkpoint(folder: Path) -> None:
    tiny_folder(folder / "a model")
    _, given = again("a model", family="chronos-bolt", data="series.csv", inline=True)
    assert_asks(given, "a model", family="chronos-bolt", data="series.csv", inline=True)
    assert parsed(given["find a better setting"]).models == ["a model"]


def test_a_model_in_memory(folder: Path) -> None:
    _, given = again(tiny("chronos-bolt"))
    asked: list[Any] = []

    class Stub:
        MergeConfig = tsm.MergeConfig

        @staticmethod
        def export(model: Any, merge: MergeConfig, **options: Any) -> None:
            asked.append((merge, options))

    first, _, call = given["export"].partition("; ")
    assert first == "import tsmerge_export as tsm"
    eval(call, {"tsm": Stub, "model": None})
    ((merge, options),) = asked
    wanted = {"output": "made", "threads": 1, "seed": 2, "rtol": 1e-3, "opset": 18}
    assert merge == MERGE and options == wanted


@pytest.mark.parametrize("suffix", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])
def test_a_graph(folder: Path, suffix: str) -> None:
    file = f"a model.{suffix}"
    if suffix == "onnx":
        graphs.export("plain", file, old=True, opset=17)
    else:
        graphs.save_program("plain", file)
    options = GraphOptions(protect_first=1, protect_last=2, token_mask="none")
    program = {"opset": 19} if suffix == "pt2" else {}
    content, given = again(file, graph=options, **program)
    assert_asks(
        given, file, protect_first=1, protect_last=2, token_mask="none", inputs=None, data=None, family=None,
        **{"opset": None, **program},
    )  # fmt: skip
    assert content["opset"] == program.get("opset", 18)
    assert not any(" tune " in command for command in given.values())
