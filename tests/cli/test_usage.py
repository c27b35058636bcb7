"""Every mistake a user can make on the command line: one line on stderr, the right exit code, nothing written."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.models import BOLT, tiny_folder
from tsmerge_export.bundle import BundleWriter
from tsmerge_export.checkpoint import hub
from tsmerge_export.cli import main, main_export
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.examples import EXAMPLES
from tsmerge_export.cli.parser import export_parser, tsmerge_parser
from tsmerge_export.errors import UsageError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def model(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model ``tiny`` in the current folder, which a test may damage."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "tiny")
    return "tiny"


def error_of(capture: Capture, code: int, expected: int) -> str:
    out, err = capture.readouterr()
    assert code == expected, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (["--ratio", "0"], "--ratio 0 is out of range"),
        (["--ratio", "0.51"], "--ratio 0.51 is out of range"),
        (["--ratio", "3/4"], "at most 1/2"),
        (["--ratio", "60%"], "at most 1/2"),
        (["--ratio", "-1/4"], "--ratio"),
        (["--ratio", "1/0"], "is not a number"),
        (["--ratio", "many"], "is not a number"),
        (["--ratio", "nan"], "--ratio"),
        (["--ratio", "1e-999999999"], "is not a number"),
        (["--ratio", "1e999999999%"], "is not a number"),
        (["--k", "0"], "--k 0 is out of range"),
        (["--k", "1.5"], "is not a whole number"),
        (["--r", "0"], "--r 0 is not a whole number of at least 1"),
        (["--r", "4", "--ratio", "1/4"], "--r and --ratio exclude each other"),
        (["--min-tokens", "-1"], "--min-tokens"),
        (["--layers", "a"], "is not a list of layer indices"),
        (["--layers", ""], "is not a list of layer indices"),
        (["--layers=-1"], "--layers -1"),
        (["--positions", "sideways"], "--positions sideways"),
        (["--merge", "magic"], "--merge magic is not a known method"),
        (["--merge", "pitome", "--margin", "1.5"], "--margin 1.5 is out of range; it must be from -1 to 1"),
        (["--merge", "pitome", "--margin", "0.9,much"], "--margin much is not a number"),
        (["--merge", "pitome", "--margin", "nan"], "--margin nan is out of range"),
        (["--merge", "pitome", "--alpha", "-1"], "--alpha -1 is out of range"),
        (["--merge", "pitome", "--alpha", "1,2"], "--alpha 1,2 is not a number"),
        (
            ["--merge", "pitome", "--energy", "high"],
            "--energy high is not known; choose one of: elu, gaussian",
        ),
        (
            ["--merge", "pitome", "--energy", "gaussian", "--alpha", "1"],
            "--alpha has no effect with --energy gaussian",
        ),
        (["--merge", "pitome", "--k", "2"], "--k has no effect with --merge pitome"),
        (["--margin", "0.5"], "--margin has no effect with --merge local"),
        (["--merge", "global", "--energy", "elu"], "--energy has no effect with --merge global"),
        (["--merge", "ssm", "--prune-share", "1.5"], "--prune-share 1.5 is out of range; it must be from 0"),
        (["--merge", "ssm", "--prune-share=-0.1"], "--prune-share -0.1 is out of range"),
        (["--merge", "ssm", "--prune-share", "some"], "--prune-share some is not a number"),
        (["--merge", "ssm", "--prune-share", "1e-999999999"], "is not a number"),
        (["--merge", "ssm", "--threshold", "0.9"], "--threshold has no effect with --merge ssm"),
        (["--merge", "ssm", "--k", "2"], "--k has no effect with --merge ssm"),
        (["--prune-share", "0.5"], "--prune-share has no effect with --merge local"),
        (["--merge", "none", "--prune-share", "0.5"], "--prune-share has no effect with --merge none"),
        (["--causal", "--k", "2"], "--causal needs --merge local or dynamic with --k 1"),
        (["--causal", "--merge", "global"], "--causal needs --merge local or dynamic with --k 1"),
        (["--causal", "--merge", "pitome"], "--causal needs --merge local or dynamic with --k 1"),
        (["--causal", "--merge", "none"], "--causal has no effect with --merge none"),
        (["--similarity", "euclid"], "--similarity euclid is not known; choose one of: cosine, l2, dot"),
        (["--merge", "pitome", "--similarity", "l2"], "--similarity has no effect with --merge pitome"),
        (["--merge", "none", "--similarity", "l2"], "--similarity has no effect with --merge none"),
        (["--merge", "none", "--ratio", "1/4"], "--ratio has no effect with --merge none"),
        (["--merge", "none", "--min-tokens", "4"], "--min-tokens has no effect"),
        (["--threshold", "0.9"], "--threshold has no effect with --merge local"),
        (["--merge", "global", "--threshold", "0.9"], "--threshold has no effect with --merge global"),
        (["--merge", "none", "--threshold", "0.9"], "--threshold has no effect with --merge none"),
        (["--merge", "dynamic", "--r", "4"], "--r has no effect with --merge dynamic"),
        (["--merge", "dynamic", "--ratio", "1/4"], "--ratio has no effect with --merge dynamic"),
        (["--merge", "dynamic", "--schedule", "linear"], "--schedule has no effect with --merge dynamic"),
        (["--merge", "dynamic", "--threshold", "1.01"], "--threshold 1.01 is out of range"),
        (["--merge", "dynamic", "--threshold=-1.01"], "--threshold -1.01 is out of range"),
        (["--merge", "dynamic", "--threshold", "nan"], "--threshold nan is out of range"),
        (["--merge", "dynamic", "--threshold", "high"], "--threshold high is not a number"),
        (["--merge", "dynamic", "--threshold", "0.9,"], "is not a number"),
        (["--merge", "dynamic", "--threshold", "0.9,0.8,0.7"], "lists 3 values, but 2 layers merge"),
        (["--threads", "0"], "--threads"),
        (["--atol", "-1"], "--atol"),
        (["--atol", "nan"], "--atol"),
        (["--rtol", "0.1"], "--rtol"),
        (["--opset", "x"], "--opset"),
        (["--data", "nothing.csv"], "--data nothing.csv: no such file"),
        (["--config", "nothing.json"], "--config nothing.json: no such file"),
        (["--json", "no/such/folder/x.json"], "--json no/such/folder/x.json"),
        (["--json", "."], "--json ."),
        (["--frobnicate"], "--frobnicate"),
        (["--rat", "1/4"], "--rat"),
        (["-o", "tiny"], "exists already"),
        (["-o", "tiny", "--force"], "is not a bundle"),
        (["-o", "tiny/config.json", "--force"], "is a file"),
        (["-o", "tiny/config.json/out"], "cannot be made"),
        (["-o", "/proc/nothing/out"], "cannot be made"),
    ],
)
def test_usage(model: str, capsys: Capture, flags: list[str], match: str) -> None:
    before = sorted(Path().rglob("*"))
    assert match in error_of(capsys, main_export([model, *flags]), 2)
    assert sorted(Path().rglob("*")) == before
    # The same command under its other name.
    assert match in error_of(capsys, main(["export", model, *flags]), 2)


def test_usage_errors_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None, transformers=None, rich=None)\n"
        "from tsmerge_export.cli import main, main_export\n"
        "assert main_export(['--help']) == 0\n"
        "assert main(['inspect', '--help']) == 0\n"
        "assert main_export(['nothing', '--ratio', '0']) == 2\n"
        "assert main_export(['nothing']) == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("arguments", [[], ["dance"], ["export"], ["validate", "x"], ["inspect"]])
def test_missing_arguments(capsys: Capture, arguments: list[str]) -> None:
    assert "--help" in error_of(capsys, main(arguments), 2)


def test_help_and_version(capsys: Capture) -> None:
    assert main_export(["--help"]) == 0
    text = capsys.readouterr().out
    for flag in (
        "--merge", "--k", "--ratio", "--r", "--threshold", "--similarity", "--margin", "--alpha", "--energy",
        "--prune-share", "--min-tokens", "--layers", "--positions", "--causal", "--output", "--opset", "--data",
        "--json", "--atol", "--rtol", "--threads", "--trust-remote-code", "--force", "--inline", "--family", "--config",
    ):  # fmt: skip
        assert flag in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tsmerge-export ")


@pytest.mark.parametrize("command", [None, *EXAMPLES])
def test_every_help_ends_with_commands_that_parse(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, command: str | None
) -> None:
    """As they are printed, on 80 columns; ``None`` is ``tsmerge-export``."""
    monkeypatch.setenv("COLUMNS", "80")
    call = main_export if command is None else main
    assert call([*([command] if command else []), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    lines = text.partition("\nexamples:\n")[2].splitlines()
    assert 1 <= len(lines) <= 2
    for line in lines:
        name, *words = shlex.split(line.partition("<")[0])
        assert name == ("tsmerge-export" if command is None else "tsmerge")
        if command:
            assert words[0] == command
        parser = export_parser() if command is None else tsmerge_parser()
        args = parser.parse_args(words)
        assert callable(args.run)
        # What can be read without the files makes sense too.
        if hasattr(args, "merge"):
            merge_config(args)


def test_every_command_has_examples() -> None:
    (commands,) = (a for a in tsmerge_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert {"", *commands.choices} == set(EXAMPLES)


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


def test_unknown_family_flag(model: str, capsys: Capture) -> None:
    assert "--family nope is not known" in error_of(capsys, main_export([model, "--family", "nope"]), 2)


def test_list_of_another_length(model: str, capsys: Capture) -> None:
    flags = ["--merge", "pitome", "--margin", "0.9,0.6,0.3", "-o", "out"]
    message = error_of(capsys, main_export([model, *flags]), 2)
    assert "--margin lists 3 values, but 2 layers merge; give one for each, or one for all" in message
    assert not Path("out").exists()


def test_layers_out_of_range(model: str, capsys: Capture) -> None:
    message = error_of(capsys, main_export([model, "--layers", "0,7", "-o", "out"]), 2)
    assert "--layers 7 is out of range; the model has layers 0 to 1" in message
    assert not Path("out").exists()


@pytest.mark.parametrize("opset", ["17", "99"])
def test_opset_out_of_range(model: str, capsys: Capture, opset: str) -> None:
    assert opset in error_of(capsys, main_export([model, "--opset", opset]), 3)


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


def test_missing_package(model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'chronos'", name="chronos")

    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", absent)
    assert "chronos is not installed; pip install 'tsmerge-export[export]'" in error_of(
        capsys, main_export([model]), 4
    )


def test_a_bug_is_one_line_and_its_traceback_is_kept(
    model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", broken)
    message = error_of(capsys, main_export([model]), 1)
    assert "unexpected ZeroDivisionError: first second; this is a bug" in message
    (log,) = tmp_path.glob("tsmerge-bug-*.txt")
    assert str(log) in message
    assert "in broken" in log.read_text()
    monkeypatch.setenv("TSMERGE_DEBUG", "1")
    assert main_export([model]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_full_disk(model: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out/model.onnx")

    monkeypatch.setattr("tsmerge_export.cli.commands.merge_config", full)
    assert "out/model.onnx: No space left on device" in error_of(capsys, main_export([model]), 2)


@pytest.mark.parametrize(
    ("command", "unbuffered"), [(["--help"], "1"), (["--version"], ""), (["families"], "")]
)
def test_reader_that_goes_away(model: str, command: list[str], unbuffered: str) -> None:
    """`tsmerge ... | true` ends with 0 and says nothing, be it while printing or at the end; so does the module."""
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tsmerge_export", *command],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, b"")


def _bundle(path: Path, family: str = "chronos-bolt") -> None:
    with BundleWriter(path) as writer:
        (writer.path / "model.onnx").write_bytes(b"nonsense")
        component = {"name": "model", "file": "model.onnx", "inputs": [], "outputs": []}
        writer.commit({"family": family, "merge": {"method": "local"}, "components": [component]})


@pytest.mark.parametrize(
    ("command", "match"),
    [
        (["inspect", "x.onnx", "--json", "./x.onnx"], "--json ./x.onnx: is x.onnx, which would be lost"),
        (["inspect", "x.onnx", "--json", "link"], "--json link: is x.onnx, which would be lost"),
        (["lowpass", "--data", "a.csv", "--json", "a.csv"], "--json a.csv: is --data a.csv, which would be"),
        (["lowpass", "--json", "r", "--markdown", "./r"], "--markdown ./r: is the same file as --json r"),
        (["tune", "x.onnx", "--data", "a.csv", "--json", "a.csv"], "--json a.csv: is --data a.csv"),
        (["forecast", "out", "a.csv", "-o", "a.csv"], "-o a.csv: is a.csv, which would be lost"),
        (["export", "out/model.onnx", "-o", "out", "--force"], "holds out/model.onnx, which would be lost"),
        (["export", "out/model.onnx", "-o", ".", "--force"], "is not a bundle"),
    ],
)
def test_no_result_takes_the_place_of_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: list[str], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _bundle(Path("out"))
    for name in ("x.onnx", "a.csv"):
        Path(name).write_text(name)
    Path("link").symlink_to("x.onnx")
    assert match in error_of(capsys, main(command), 2)
    assert [Path(name).read_text() for name in ("x.onnx", "a.csv", "link")] == ["x.onnx", "a.csv", "x.onnx"]
    assert Path("out/model.onnx").read_bytes() == b"nonsense"


def test_validate_and_inspect_of_what_is_no_bundle(model: str, capsys: Capture) -> None:
    for command in (["validate", "nothing", model], ["inspect", "nothing"]):
        assert "nothing: no such" in error_of(capsys, main(command), 2)
    for command in (["validate", "tiny", model], ["inspect", "tiny"]):
        assert "tiny: not a bundle" in error_of(capsys, main(command), 2)
    Path("x.onnx").write_bytes(b"nonsense")
    assert "x.onnx: truncated or not an ONNX file" in error_of(capsys, main(["inspect", "x.onnx"]), 2)


def test_validate_and_inspect_of_a_changed_bundle(model: str, capsys: Capture) -> None:
    _bundle(Path("out"))
    Path("out/model.onnx").write_bytes(b"nonsensf")
    for command in (["validate", "out", model], ["inspect", "out"]):
        assert "out/model.onnx: was changed" in error_of(capsys, main(command), 2)


def test_validate_against_another_family(model: str, capsys: Capture) -> None:
    _bundle(Path("out"), "chronos-t5")
    assert "chronos-t5" in error_of(capsys, main(["validate", "out", model]), 2)
