"""The commands from end to end on a tiny model: bundle, verdict table, report, model card, validate, inspect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.models import tiny, tiny_folder
from tsmerge_export.cli import main, main_export
from tsmerge_export.verify import corpus, parity, tolerances

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module", autouse=True)
def few_cases() -> Iterator[None]:
    """A tenth of the parity corpus: its rigour is tested elsewhere."""
    whole = corpus.cases
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "cases", lambda *args, **kwargs: list(whole(*args, **kwargs))[::10])
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    tiny_folder(root / "tiny")
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(500) * 2 * np.pi / 24)[:, None] + rng.normal(0, 0.1, (500, 2))
    np.savetxt(root / "series.csv", wave, delimiter=",", header="a,b", comments="")
    return root


def run_export(root: Path, output: str, *flags: str) -> int:
    common = ["--data", str(root / "series.csv"), "--threads", "1", "-o", str(root / output)]
    return main_export([str(root / "tiny"), *common, *flags])


@pytest.fixture(scope="module")
def bundle(made: Path) -> Path:
    assert run_export(made, "merged", "--ratio", "25%", "--json", str(made / "report.json")) == 0
    return made / "merged"


def test_bundle(made: Path, bundle: Path) -> None:
    opened = tsm.Bundle.open(bundle)
    assert set(opened.manifest["files"]) == {"model.onnx", "report.html", "report.json", "README.md"}
    assert opened.manifest["merge"]["ratio"] == "1/4"
    assert opened.verdicts["parity"]["passed"]
    report = json.loads((bundle / "report.json").read_text())
    assert report["verdicts"] == opened.verdicts
    assert json.loads((made / "report.json").read_text()) == report
    card = (bundle / "README.md").read_text()
    for text in (
        "| 0 | 33 | 25 |",
        "| 1 | 25 | 19 |",
        "tsm.load(",
        '{"context": context}',
        "Verdicts and times are those of ONNX Runtime on the CPU.",
        "passed",
    ):
        assert text in card
    assert sorted(path.name for path in made.iterdir() if path.name.startswith(".")) == []


def test_bundle_runs_as_the_eager_model_merged(bundle: Path) -> None:
    import torch

    model = tiny("chronos-bolt").eval()
    series = np.random.default_rng(1).normal(size=(3, 101)).astype(np.float32)
    with torch.no_grad(), tsm.merging(model, tsm.MergeConfig(ratio="1/4")):
        expected = model(context=torch.from_numpy(series)).quantile_preds.numpy()
    got = tsm.load(bundle, threads=1).run({"context": series})["quantiles"]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * scale)


def test_verdict_table(made: Path, capsys: Capture) -> None:
    assert run_export(made, "table", "--layers", "1") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for text in (
        "passed",
        "decision flips",
        "series.csv",
        "weighted quantile loss",
        "time per call",
        " ms ",
    ):
        assert text in out
    assert out.rstrip().endswith(f"bundle: {made / 'table'}")


def test_a_family_that_advises_against_merging_is_exported_as_it_is(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main_export([str(made / "tiny"), "--data", str(made / "series.csv"), "--threads", "1"]) == 0
    out = capsys.readouterr().out
    line = (
        "not merging: the default for chronos-bolt with 32 tokens of 256 steps, too few for a safe amount to pay; "
        "--ratio to merge"
    )
    assert line in " ".join(out.split())
    assert "bundle: tiny-none" in out
    bundle = tsm.Bundle.open("tiny-none")
    assert (bundle.manifest["merge"]["method"], bundle.manifest["notes"]) == ("none", [line])
    for file in ("README.md", "report.html"):
        assert line in Path("tiny-none", file).read_text()
    # A second one is refused, though its name is not known before the model is.
    assert main_export([str(made / "tiny"), "--data", str(made / "series.csv"), "--threads", "1"]) == 2
    assert "tiny-none" in capsys.readouterr().err


def test_an_amount_that_is_left_out_is_the_familys_and_one_too_large_is_noted(
    made: Path, capsys: Capture
) -> None:
    assert run_export(made, "asked", "--merge", "local") == 0
    assert (
        "merging 1/10 per layer: the default for chronos-bolt; --ratio to choose" in capsys.readouterr().out
    )
    assert tsm.Bundle.open(made / "asked").manifest["merge"]["ratio"] == "1/10"
    assert run_export(made, "much", "--r", "64") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "note: --r 64 is more than can merge: of 33 tokens (length 256) the layers remove 16, 8, which leaves 9"
        in out
    )
    assert tsm.Bundle.open(made / "much").manifest["notes"] == []


def test_without_merging(made: Path, capsys: Capture) -> None:
    assert run_export(made, "plain", "--merge", "none") == 0
    assert "Merge cost: not measured, nothing is merged" in capsys.readouterr().out
    assert "Nothing: the model is exported as it is." in (made / "plain" / "README.md").read_text()


def test_validate(made: Path, bundle: Path, capsys: Capture) -> None:
    json_file = made / "again.json"
    flags = ["--data", str(made / "series.csv"), "--threads", "1", "--json", str(json_file)]
    assert main(["validate", str(bundle), str(made / "tiny"), *flags]) == 0
    assert "passed" in capsys.readouterr().out
    again, first = json.loads(json_file.read_text())["verdicts"], tsm.Bundle.open(bundle).verdicts
    assert again["parity"]["rows"] == first["parity"]["rows"]
    assert again["cost"]["overall"] == first["cost"]["overall"]


def test_validate_against_other_weights(made: Path, bundle: Path, capsys: Capture) -> None:
    tiny_folder(made / "other", seed=5)
    assert main(["validate", str(bundle), str(made / "other"), "--threads", "1"]) == 1
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert "parity failed" in out
    assert err.startswith(f"error: {bundle}: parity failed: ")
    assert err.count("\n") == 1


def test_failed_parity_writes_no_bundle(made: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parity.check

    def impossible(*args: Any, **kwargs: Any) -> parity.ParityReport:
        report = real(*args, **kwargs)
        report.cases[0].failures.append("made to fail")
        return report

    monkeypatch.setattr(parity, "check", impossible)
    assert run_export(made, "failed", "--json", str(made / "failed.json")) == 1
    out, err = capsys.readouterr()
    assert "FAILED" in out
    assert "made to fail" in err
    assert err.count("\n") == 1
    assert not (made / "failed").exists()
    assert json.loads((made / "failed.json").read_text())["verdicts"]["parity"]["passed"] is False


def test_tolerances_reach_the_verdict(made: Path, capsys: Capture) -> None:
    assert tolerances.end_to_end("chronos-bolt").atol > 0
    assert run_export(made, "strict", "--atol", "0", "--rtol", "0") == 1
    assert "parity failed" in capsys.readouterr().err


def test_inspect_bundle(made: Path, bundle: Path, capsys: Capture) -> None:
    json_file = made / "inspect.json"
    assert main(["inspect", str(bundle), "--batch", "2", "--length", "256", "--json", str(json_file)]) == 0
    out = capsys.readouterr().out
    for text in ("2 merges", "barriers: none", "matrix products", "fewer", "tsmerge::LocalMerge"):
        assert text in out
    (part,) = json.loads(json_file.read_text())["components"]
    assert [(m["layer"], m["before"], m["after"]) for m in part["merges"]] == [(0, 33, 25), (1, 25, 19)]
    assert part["flops"]["merged"] < part["flops"]["unmerged"]
    # A file alone tells the same.
    assert (
        main(
            [
                "inspect",
                str(bundle / "model.onnx"),
                "--batch",
                "2",
                "--length",
                "256",
                "--json",
                str(json_file),
            ]
        )
        == 0
    )
    (alone,) = json.loads(json_file.read_text())["components"]
    assert alone["flops"] == part["flops"]
    assert [m["before"] for m in alone["merges"]] == [33, 25]


def test_inspect_inlined(made: Path, capsys: Capture) -> None:
    assert run_export(made, "inlined", "--inline", "--merge", "dynamic", "--threshold", "0.2") == 0
    # These come from the form that still has its merge nodes.
    assert "tokens of that batch" in capsys.readouterr().out
    assert main(["inspect", str(made / "inlined")]) == 0
    assert "2 merges, written inline" in capsys.readouterr().out


def test_dynamic(made: Path, capsys: Capture) -> None:
    """A method without r, through every command."""
    merge = ("--merge", "dynamic", "--threshold", "0.2,-0.5")
    assert run_export(made, "dynamic", *merge) == 0
    out = capsys.readouterr().out
    assert "dynamic k=1 threshold=0.2,-0.5 min-tokens=4" in out
    assert "tokens of that batch" in out
    bundle = tsm.Bundle.open(made / "dynamic")
    tokens = bundle.manifest["verdicts"]["cost"]["tokens"]
    assert len(tokens) == 3
    assert tokens[0] > tokens[2] > 0
    assert main(["inspect", str(made / "dynamic")]) == 0
    out = capsys.readouterr().out
    assert "k 1, threshold 0.2, min-tokens 4" in out
    assert "counts on generated input" in out
    assert "r 0" not in out
    arguments = ["--data", str(made / "series.csv"), "--threads", "1"]
    assert main(["validate", str(made / "dynamic"), str(made / "tiny"), *arguments]) == 0
    assert "tokens of that batch" in capsys.readouterr().out


def test_checkpoint_file_and_default_output(
    made: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tsm.save_checkpoint(tiny("chronos-bolt"), "mine.pt")
    shutil.copy(made / "series.csv", tmp_path)
    assert main(["export", "mine.pt", "--data", "series.csv", "--threads", "1", "--r", "3"]) == 0
    assert "bundle: mine-local" in capsys.readouterr().out
    assert tsm.Bundle.open("mine-local").manifest["merge"]["r"] == 3
