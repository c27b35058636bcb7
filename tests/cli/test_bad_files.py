"""Models, data and bundles that are none, or not whole: one line on stderr, the right exit code, nothing written."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.cli.said import Capture, bundle, error_of
from tests.models import BOLT
from tsmerge_export.checkpoint import hub
from tsmerge_export.cli import main, main_export
from tsmerge_export.errors import UsageError


def _no_config(path: Path) -> None:
    (path / "config.json").unlink()


def _truncated(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def _unknown_family(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({**BOLT, "architectures": ["BertModel"]}))


def _remote_code(path: Path) -> None:
    (path / "config.json").write_text(json.dumps({**BOLT, "auto_map": {"AutoModel": "x.Y"}}))


@pytest.mark.parametrize(
    ("damage", "code", "match"),
    [
        (_no_config, 2, "tiny: no config.json"),
        (_truncated, 2, "tiny/model.safetensors: truncated"),
        (_unknown_family, 3, "describes BertModel"),
        (_remote_code, 2, "--trust-remote-code"),
        (shutil.rmtree, 2, "tiny: no such file or folder"),
    ],
)
def test_damaged_models(
    model: str, capsys: Capture, damage: Callable[[Path], None], code: int, match: str
) -> None:
    damage(Path(model))
    assert match in error_of(capsys, main_export([model, "-o", "out"]), code)
    assert not [p for p in Path().iterdir() if p.name != "tiny"]


def test_pickled_module(model: str, capsys: Capture) -> None:
    torch.save(nn.Linear(2, 2), "module.pt")
    message = error_of(capsys, main_export(["module.pt"]), 2)
    assert "tsmerge_export.save_checkpoint(model, path)" in message
    assert not Path("module-local").exists()


@pytest.mark.parametrize("name", ["model.onnx", "program.pt2"])
def test_files_that_are_no_graphs(model: str, capsys: Capture, name: str) -> None:
    Path(name).touch()
    assert "truncated or not a" in error_of(capsys, main_export([name]), 2)
    assert "famil" in error_of(capsys, main_export([name, "--family", "mamba2"]), 2)
    code = main_export([name, "--runtime", "tensorrt"])
    if importlib.util.find_spec("onnx_graphsurgeon"):
        assert "famil" in error_of(capsys, code, 3)
    else:
        assert "graphsurgeon is not installed; pip install" in error_of(capsys, code, 4)
    assert "--protect-first is for" in error_of(capsys, main_export([model, "--protect-first", "1"]), 2)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a,b\n" + "1,2\n3,four\n" * 50, "four"),
        ("a\n" + "1\n2\n" * 5, "rows"),
        ("", "data.csv"),
    ],
)
def test_bad_data(model: str, capsys: Capture, text: str, match: str) -> None:
    Path("data.csv").write_text(text)
    message = error_of(capsys, main_export([model, "--data", "data.csv", "-o", "out"]), 2)
    assert "data.csv" in message
    assert match in message
    assert sorted(p.name for p in Path().iterdir()) == ["data.csv", "tiny"]


def test_hub_model_without_connection(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def unreachable(hub_id: str) -> Path:
        raise UsageError(f"{hub_id}: cannot be downloaded")

    monkeypatch.setattr(hub, "download", unreachable)
    monkeypatch.setattr("tsmerge_export.checkpoint.download", unreachable)
    assert "someone/model: cannot be downloaded" in error_of(capsys, main_export(["someone/model"]), 2)
    assert list(tmp_path.iterdir()) == []


def test_validate_and_inspect_of_what_is_no_bundle(model: str, capsys: Capture) -> None:
    for command in (["validate", "nothing", model], ["inspect", "nothing"]):
        assert "nothing: no such" in error_of(capsys, main(command), 2)
    for command in (["validate", "tiny", model], ["inspect", "tiny"]):
        assert "tiny: not a bundle" in error_of(capsys, main(command), 2)
    Path("x.onnx").write_bytes(b"nonsense")
    assert "x.onnx: truncated or not an ONNX file" in error_of(capsys, main(["inspect", "x.onnx"]), 2)


def test_validate_and_inspect_of_a_changed_bundle(model: str, capsys: Capture) -> None:
    bundle(Path("out"))
    Path("out/model.onnx").write_bytes(b"nonsensf")
    for command in (["validate", "out", model], ["inspect", "out"]):
        assert "out/model.onnx: was changed" in error_of(capsys, main(command), 2)


def test_validate_against_another_family(model: str, capsys: Capture) -> None:
    bundle(Path("out"), "chronos-t5")
    assert "chronos-t5" in error_of(capsys, main(["validate", "out", model]), 2)
