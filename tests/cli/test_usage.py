"""Every mistake a user can make with the flags of a command: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.said import Capture, bundle, error_of
from tsmerge_export.cli import main, main_export
from tsmerge_export.cli.files import folder_named


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
        (["--protect-newest", "-1"], "--protect-newest"),
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
        (["--precision", "int2"], "--precision int2: choose one of fp32, int8, int8-static, int8-weights"),
        (["--precision", "int8", "--keep-precise", ","], "names no module or node"),
        (["--keep-precise", "a"], "--keep-precise has no effect with --precision fp32; leave it out"),
        (["--max-increase", "1%"], "--max-increase has no effect with --precision fp32; leave it out"),
        (["--precision", "int8", "--max-increase", "much"], "is not a share such as 3%"),
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
    ("command", "match"),
    [
        (["inspect", "x.onnx", "--json", "./x.onnx"], "--json ./x.onnx: is x.onnx, which would be lost"),
        (["inspect", "x.onnx", "--json", "link"], "--json link: is x.onnx, which would be lost"),
        (["lowpass", "--data", "a.csv", "--json", "a.csv"], "--json a.csv: is --data a.csv, which would be"),
        (["lowpass", "--json", "r", "--markdown", "./r"], "--markdown ./r: is the same file as --json r"),
        (["tune", "x.onnx", "--data", "a.csv", "--json", "a.csv"], "--json a.csv: is --data a.csv"),
        (["forecast", "out", "a.csv", "-o", "a.csv"], "-o a.csv: is a.csv, which would be lost"),
        (
            ["forecast", "out", "x.onnx", "--future", "a.csv", "-o", "a.csv", "--force"],
            "-o a.csv: is --future a.csv, which would be lost",
        ),
        (["export", "out/model.onnx", "-o", "out", "--force"], "holds out/model.onnx, which would be lost"),
        (["export", "out/model.onnx", "-o", ".", "--force"], "is not a bundle"),
    ],
)
def test_no_result_takes_the_place_of_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, command: list[str], match: str
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle(Path("out"))
    for name in ("x.onnx", "a.csv"):
        Path(name).write_text(name)
    Path("link").symlink_to("x.onnx")
    assert match in error_of(capsys, main(command), 2)
    assert [Path(name).read_text() for name in ("x.onnx", "a.csv", "link")] == ["x.onnx", "a.csv", "x.onnx"]
    assert Path("out/model.onnx").read_bytes() == b"nonsense"


@pytest.mark.parametrize("given", ["out", "out/", "./out", "a/../out/"])
def test_names_beside_a_folder_are_made_of_its_own(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    assert Path(f"{folder_named(given)}-more").resolve() == tmp_path / "out-more"
    assert folder_named(".") == str(tmp_path.resolve())
