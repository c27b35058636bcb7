"""``tsmerge distill`` from end to end on a tiny model: what it writes, says, keeps and refuses."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny, tiny_folder
from tsmerge_export.bundle.distillation import report_of_distillation
from tsmerge_export.cli import handler, main
from tsmerge_export.cli.parser import tsmerge_parser
from tsmerge_export.report.html.distillation import command
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill import folder as state_folder

Capture = pytest.CaptureFixture[str]
QUICK = [
    "--data",
    "a.csv",
    "--steps",
    "6",
    "--batch",
    "4",
    "--context",
    "64",
    "--threads",
    "1",
    "--lr",
    "1e-3",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distill")
    tiny_folder(path / "tiny")
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(900) * 2 * np.pi / 24)[:, None] + rng.normal(0, 0.1, (900, 2))
    np.savetxt(path / "a.csv", wave, delimiter=",", header="load,temp", comments="")
    return path


@pytest.fixture(autouse=True)
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def names(path: str) -> set[str]:
    return {one.name for one in Path(path).iterdir()}


def weights(path: str) -> dict[str, torch.Tensor]:
    return dict(tsm.load_model(path).model.state_dict())


def test_a_checkpoint_with_its_report(capsys: Capture) -> None:
    flags = ["--elastic", "0,1/4,1/2", "--control", "--max-increase", "500%", "--column", "temp"]
    assert main(["distill", "tiny", *QUICK, *flags, "-o", "out", "--json", "r.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "6 steps of 4 windows" in out
    assert "goal met: merged, MSE and WQL are at most 500 % above" in out
    assert "unmerged ONNX Runtime, batch 8, 64 steps, 1 thread, timed in turns" in out
    assert out.endswith("checkpoint: out")
    files = {"config.json", "model.safetensors", "distillation.json", "report.json", "report.html"}
    assert names("out") - {"generation_config.json"} == files
    assert not Path("out.distill-state").exists()
    # What was trained for is the largest ratio, where --ratio says nothing.
    loaded = tsm.load_model("out")
    assert loaded.trained is not None
    assert loaded.trained.merge == MergeConfig(ratio="1/2")
    assert list(map(str, loaded.trained.elastic)) == ["0", "1/4", "1/2"]
    report = json.loads(Path("r.json").read_text())
    assert report == json.loads(Path("out/report.json").read_text())
    assert [one["merge"]["ratio"] for one in report["speeds"]] == ["1/2", "1/4"]
    assert all(one["value"] > 0 and one["batch"] == 8 for one in report["speeds"])
    record = json.loads(Path("out/distillation.json").read_text())
    assert {name: report[name] for name in ("scores", "history", "trained")} == {
        name: record[name] for name in ("scores", "history", "trained")
    }
    # Every table, setting and the control is a row; the figures are the record's.
    page = Path("out/report.html").read_text()
    for score in record["scores"]:
        assert f"{score['after']['mse']['percent']:+.1f} %".lstrip("+") in page
    assert "unmerged, trained without merging (control)" in page
    # The command on the page asks for what was asked for.
    again = tsmerge_parser().parse_args(command(report_of_distillation(report))[1:])
    assert shlex.join(command(report_of_distillation(report))).replace("'", "") in page.replace("&#x27;", "")
    wanted = {
        "model": "tiny", "data": ["a.csv"], "steps": 6, "batch": 4, "context": 64, "threads": 1, "lr": 1e-3,
        "elastic": "0,1/4,1/2", "control": True, "max_increase": 500.0, "column": ("temp",), "output": "out",
        "ratio": "1/2", "merge": "local", "budget": None,
    }  # fmt: skip
    assert {name: getattr(again, name) for name in wanted} == wanted


def test_an_interrupt_keeps_the_training_and_resume_ends_it_to_the_bit(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--ratio", "1/2", "--no-speed"]
    assert main(["distill", "tiny", *QUICK, *flags, "-o", "whole"]) == 0
    calls = iter(range(10**6))

    def stop() -> None:
        if next(calls) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(handler, "raise_if_interrupted", stop)
        assert main(["distill", "tiny", *QUICK, *flags, "-o", "parts"]) == handler.INTERRUPTED
    said = capsys.readouterr().err
    assert "parts.distill-state; the same command with --resume goes on with it" in said
    assert "Traceback" not in said
    assert not Path("parts").exists()
    assert "train.safetensors" in names("parts.distill-state")
    # Not with other settings, and what is kept stays.
    assert main(["distill", "tiny", *QUICK, "--ratio", "1/4", "-o", "parts", "--resume"]) == 2
    assert "was made with another merge" in capsys.readouterr().err
    assert "train.safetensors" in names("parts.distill-state")
    assert main(["distill", "tiny", *QUICK, *flags, "-o", "parts", "--resume"]) == 0
    whole, parts = weights("whole"), weights("parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert not Path("parts.distill-state").exists()


def test_without_resume_it_starts_again_and_says_so(capsys: Capture) -> None:
    Path("again.distill-state").mkdir()
    Path("again.distill-state/train.safetensors").write_bytes(b"cut off")
    flags = ["--no-speed", "-o", "again"]
    assert main(["distill", "tiny", *QUICK, *flags]) == 0
    said = capsys.readouterr()
    assert "it starts again (--resume goes on with it)" in said.err
    assert tsm.load_model("again").trained is not None
    assert main(["distill", "tiny", *QUICK, *flags, "--force", "--resume"]) == 0
    assert "nothing is kept in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["missing"], 2, "missing: no such file or folder"),
        (["tiny", "--data", "a.csv", "none.csv"], 2, "--data none.csv: no such file"),
        (["tiny", "--data", "-", "-"], 2, "stdin can be read once only"),
        (["tiny", "--steps", "3", "--budget", "1h"], 2, "--steps and --budget exclude each other"),
        (["tiny", "--budget", "soon"], 2, "'soon' is not a time such as"),
        (["tiny", "--lr", "0"], 2, "'0' is not a rate above 0"),
        (["tiny", "--batch", "many"], 2, "'many' is not a whole number of at least 1"),
        (["tiny", "--trainable", "lora"], 2, "--trainable lora is not known"),
        (["tiny", "--device", "tpu"], 2, "--device tpu is not known"),
        (["tiny", "--device", "cuda:99"], 2, "--device cuda:99: PyTorch sees"),
        (["tiny", "--elastic", "1/4"], 2, "--elastic names one ratio"),
        (["tiny", "--elastic", "0,1/4", "--ratio", "1/2"], 2, "--ratio 1/2 is not among --elastic 0,1/4"),
        (["tiny", "--elastic", "0,1/4", "--merge", "dynamic"], 2, "--elastic varies one ratio"),
        (["tiny", "--ratio", "runtime"], 2, "--ratio runtime is for exports"),
        (["tiny", "--merge", "none"], 2, "--merge none: there is nothing to distill for"),
        (["tiny", "-o", "a.csv"], 2, "-o a.csv: is a file"),
        (["tiny", "-o", "tiny", "--force"], 2, "-o tiny: holds"),
        (["tiny", "-o", "strange"], 2, "strange.distill-state: holds mine.txt"),
        (["tiny", "--sep", ";"], 2, "--sep is about the file of --data"),
        (["graph.onnx"], 3, "graph.onnx: a graph has no weights that could be trained"),
        (["program.pt2"], 3, "program.pt2: a graph has no weights"),
        (["bundle"], 2, "bundle: is a bundle; give the model that it was made from"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(flags: list[str], code: int, words: str, capsys: Capture) -> None:
    for file in ("graph.onnx", "program.pt2"):
        Path(file).touch()
    Path("strange.distill-state").mkdir(exist_ok=True)
    Path("strange.distill-state/mine.txt").touch()
    Path("bundle").mkdir(exist_ok=True)
    Path("bundle/manifest.json").write_text('{"format": "tsmerge-bundle"}')
    before = {one.name for one in Path.cwd().iterdir()}
    assert main(["distill", *flags]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert said.out == ""
    assert {one.name for one in Path.cwd().iterdir()} == before


def test_what_stands_there_stays(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("old").mkdir()
    Path("old/mine.txt").write_text("mine")
    for flags in ([], ["--force"]):
        assert main(["distill", "tiny", *QUICK, "-o", "old", *flags]) == 2
        assert "holds mine.txt, which no distillation has written" in capsys.readouterr().err
    assert names("old") == {"mine.txt"}
    # A checkpoint of ours is replaced as a whole, or not at all.
    found = tsm.distill(
        tiny("chronos-bolt"), data=None, steps=1, batch=2, validations=1, context=64, threads=1
    )
    found.save("ours")
    kept = {one: (Path("ours") / one).read_bytes() for one in names("ours")}
    assert main(["distill", "tiny", *QUICK, "-o", "ours"]) == 2
    assert "exists already; add --force" in capsys.readouterr().err

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tsmerge_export.report.write.distillation_page", fails)
        assert main(["distill", "tiny", *QUICK, "--no-speed", "-o", "ours", "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert {one: (Path("ours") / one).read_bytes() for one in names("ours")} == kept
    # The training is not lost: it is tested and written again.
    assert main(["distill", "tiny", *QUICK, "--no-speed", "-o", "ours", "--force", "--resume"]) == 0
    assert "report.html" in names("ours")


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with state_folder.kept(tmp_path / "x.distill-state"):
        second = state_folder.kept(tmp_path / "x.distill-state")
        with pytest.raises(tsm.errors.UsageError, match="another run is training there"):
            second.__enter__()
        assert (tmp_path / "x.distill-state").is_dir()
    assert list(tmp_path.iterdir()) == []
