"""Merging compared with the model that weights were distilled from, by export and validate, command and function."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tsmerge_export as tsm
from tests.models import BOLT, tiny
from tests.quick import quick_verdicts
from tsmerge_export import api, cli
from tsmerge_export.bundle import Bundle
from tsmerge_export.bundle.verdicts import Cost, Verdicts
from tsmerge_export.checkpoint.weights import digest
from tsmerge_export.compile import checkpoint_source
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.console.notes import Note
from tsmerge_export.errors import UsageError
from tsmerge_export.families.trained import mark
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks

ROWS, CONTEXT, HORIZON, LEVELS = 600, 256, 16, (0.1, 0.5, 0.9)
THIRD = MergeConfig(ratio="1/3")
TRAINED = Trained(THIRD, unmerged=1.04)


def values() -> np.ndarray:
    """``[ROWS, 2]``, as the table has it."""
    steps = np.arange(ROWS)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.3, (ROWS, 2))
    return np.round(np.sin(steps / np.array([3.0, 7.0])) * [1, 20] + [2, 50] + noise, 3)


def wanted(model: Any) -> list[dict[str, float]]:
    """Errors of the eager model, unmerged, on the last fifth of the rows: by column, in numpy alone."""
    found = []
    starts = np.arange(ROWS - HORIZON, ROWS - ROWS // 5 - 1, -HORIZON)[::-1]
    for column in values().T:
        context = np.stack([column[start - CONTEXT : start] for start in starts]).astype(np.float32)
        target = np.stack([column[start : start + HORIZON] for start in starts])
        with torch.no_grad():
            quantiles = model(context=torch.from_numpy(context)).quantile_preds.double().numpy()
        unit = column[: starts[0]].std()
        off = (quantiles[:, 1] - target) / unit
        gaps = target[:, None] - quantiles
        levels = np.array(LEVELS)[:, None]
        pinball = np.maximum(levels * gaps, (levels - 1) * gaps)
        wql = 2 * np.mean(pinball.sum((0, 2))) / np.abs(target).sum()
        found.append({"mse": (off**2).mean(), "mae": np.abs(off).mean(), "wql": wql})
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Folders of a checkpoint and its original, a table, and a bundle that compares the two."""
    root = tmp_path_factory.mktemp("original")
    model, original = tiny("chronos-bolt", 1), tiny("chronos-bolt", 2)
    mark(model, TRAINED)
    model.save_pretrained(root / "half")  # type: ignore[operator]
    original.save_pretrained(root / "whole")  # type: ignore[operator]
    lines = [",".join(map(str, row)) for row in values()]
    (root / "t.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    words = [root / "half", "--original", root / "whole", "--data", root / "t.csv", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        quick_verdicts(patch)
        assert cli.main_export([*map(str, words), "-o", str(root / "bundle")]) == 0
    return SimpleNamespace(root=root, model=model, original=original, words=list(map(str, words)))


def cost_of(bundle: Path) -> Cost:
    cost = Bundle.open(bundle).contents.verdicts.cost
    assert cost is not None
    return cost


def test_the_cost_is_that_against_the_eager_original(made: SimpleNamespace) -> None:
    cost = cost_of(made.root / "bundle")
    assert (cost.windows, cost.context, cost.horizon) == (7, CONTEXT, HORIZON)
    with tsm.merging(made.model, THIRD):
        merged = wanted(made.model)
    unmerged = wanted(made.original)
    for column, before, after in zip(cost.columns, unmerged, merged, strict=True):
        assert column.unmerged == pytest.approx(before, rel=1e-4)
        assert column.merged == pytest.approx(after, rel=1e-4)
    for metric in ("mse", "mae", "wql"):
        changes = [
            100 * (after[metric] / before[metric] - 1) for before, after in zip(unmerged, merged, strict=True)
        ]
        assert cost.median.change_percent[metric] == pytest.approx(np.median(changes), rel=1e-3, abs=1e-2)
    # Its own weights unmerged, which it is not compared with, are something else.
    assert abs(wanted(made.model)[0]["mse"] / unmerged[0]["mse"] - 1) > 1e-3


def test_bundle_and_page_say_what_it_was_compared_with(made: SimpleNamespace) -> None:
    bundle, place = Bundle.open(made.root / "bundle"), str(made.root / "whole")
    found = bundle.contents.original
    weights = hashlib.sha256()
    for name, tensor in sorted(made.original.state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    assert found is not None
    assert (found.source, found.sha256) == (place, weights.hexdigest())
    report = bundle.read_report()
    assert report.original == found
    assert report.verdicts.cost is not None
    assert report.verdicts.cost.original == place
    assert not any("--original" in note for note in report.verdicts.cost.notes)
    for name in ("report.html", "README.md"):
        text = (bundle.path / name).read_text()
        assert f"against {place}, unmerged" in text
        assert "original, unmerged" in text
    assert f"--original {place}" in (bundle.path / "report.html").read_text()
    # The forecasts beside the merged ones are the original's.
    assert report.example is not None
    one = report.example.series[0]
    history = torch.tensor(values().T[["a", "b"].index(one.column)][None, -CONTEXT - HORIZON : -HORIZON])
    with torch.no_grad():
        median = made.original(context=history.float()).quantile_preds[0, 1].numpy()
    assert np.asarray(one.unmerged.median) == pytest.approx(median, rel=1e-4)


def test_validate_repeats_it(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quick_verdicts(monkeypatch)
    file = tmp_path / "again.json"
    words = ["validate", str(made.root / "bundle"), *made.words, "--json", str(file)]
    assert cli.main(words) == 0
    again = json.loads(file.read_text())["verdicts"]["cost"]
    before = Bundle.open(made.root / "bundle").verdicts["cost"]
    assert [again[key] for key in ("columns", "overall", "original")] == [
        before[key] for key in ("columns", "overall", "original")
    ]


def test_validate_says_where_it_is_another_comparison(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Compilation, "validate", lambda *_: Verdicts())
    bundle = made.root / "bundle"
    with pytest.warns(Note, match=r"was compared with .*whole, unmerged, and is now with its own weights"):
        api.validate(bundle, made.model)
    with pytest.raises(UsageError, match=r"--original a model in memory: has other weights than .*whole"):
        api.validate(bundle, made.model, original=tiny("chronos-bolt", 3))


def test_without_it_no_change_is_told(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_verdicts(monkeypatch)
    words = [word for word in made.words if word not in ("--original", str(made.root / "whole"))]
    output = tmp_path / "alone"
    assert cli.main_export([*words, "-o", str(output)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "same weights, unmerged" in said
    assert "named by --original; no change is told from them" in said
    cost = cost_of(output)
    own = wanted(made.model)
    assert cost.columns[0].unmerged == pytest.approx(own[0], rel=1e-4)
    assert not cost.comparable
    assert cost.original is None
    assert set(cost.median.change_percent.values()) == {None}
    assert all(change.worst is None and change.compared == 0 for change in cost.changes.values())
    page = (output / "report.html").read_text()
    assert "not told" in page
    assert 'id="pareto"' not in page
    assert Bundle.open(output).contents.original is None


def built_of(source: CheckpointSource) -> list[Built]:
    """Files of a source that are not there."""
    return [
        Built(part, *(Path(f"{part.name}.{what}") for what in ("unmerged", "merged")), None, RewriteReport(),
              None if source.original is None else Path(f"{part.name}.original"))
        for part in source.components
    ]  # fmt: skip


def fake_cost(source: CheckpointSource, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What :meth:`CheckpointSource.cost` hands to the measurement, of files that are not there."""
    built = built_of(source)
    found: dict[str, Any] = {}

    class Measured(Exception):
        pass

    def measure(*args: Any, **options: Any) -> None:
        found.update(options, unmerged=args[3], merged=args[4])
        raise Measured

    def decoded(family: Any, model: Any, built: Any, checks: Checks) -> Any:
        return model, [item.merged.name for item in built]

    monkeypatch.setattr(checkpoint_source.cost, "measure", measure)
    monkeypatch.setattr(checkpoint_source, "decoded_by", decoded)
    with pytest.raises(Measured):
        source.cost(THIRD, built, Checks(), lambda *_: None)
    return found


def test_a_decoder_is_the_originals_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, original = tiny("chronos-t5", 1), tiny("chronos-t5", 2)
    found = fake_cost(CheckpointSource.load(model, original=original), monkeypatch)
    assert found["unmerged"].name == "encoder.original"
    assert found["forecast"][0] is model
    assert all(name.endswith(".merged") for name in found["forecast"][1])
    rival = found["rival"]
    assert rival.model is rival.forecast[0] is original
    assert len(rival.forecast[1]) > 1
    assert all(name.endswith(".original") for name in rival.forecast[1])
    alone = fake_cost(CheckpointSource.load(model), monkeypatch)
    assert (alone["unmerged"].name, alone["rival"]) == ("encoder.unmerged", None)


@pytest.mark.parametrize(("elastic", "compared"), [((), False), (("0", "1/3"), True)])
def test_weights_that_run_unmerged_are_a_rival(
    elastic: Any, compared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = tiny("chronos-bolt", 1), tiny("chronos-bolt", 2)
    mark(model, Trained(THIRD, elastic, 1.04))
    assert fake_cost(CheckpointSource.load(model), monkeypatch)["comparable"] == compared
    assert fake_cost(CheckpointSource.load(plain), monkeypatch)["comparable"]
    # What counts is whether the original runs unmerged.
    assert fake_cost(CheckpointSource.load(model, original=plain), monkeypatch)["comparable"]
    assert fake_cost(CheckpointSource.load(plain, original=model), monkeypatch)["comparable"] == compared


@pytest.mark.parametrize(("taught_by", "stranger"), [(2, False), (3, True), (None, False)])
def test_another_model_of_the_family_is_a_stranger(
    taught_by: int | None, stranger: bool, made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hash of the teacher's weights; entries without one are of earlier versions."""
    model, verdict = tiny("chronos-bolt", 1), cost_of(made.root / "bundle")
    teacher = None if taught_by is None else digest(tiny("chronos-bolt", taught_by))
    mark(model, replace(TRAINED, teacher=teacher))
    source = CheckpointSource.load(model, original=made.root / "whole")
    monkeypatch.setattr(
        checkpoint_source.cost, "measure", lambda *_, **__: SimpleNamespace(verdict=lambda: verdict)
    )
    monkeypatch.setattr(checkpoint_source.remarks, "large", lambda _: None)
    notes = source.cost(THIRD, built_of(source), Checks(), lambda *_: None).verdict.notes
    said = [
        note for note in notes if note.startswith("these weights were distilled from another model than ")
    ]
    assert len(said) == stranger
    assert all(str(made.root / "whole") in note for note in said)


def changed(**settings: Any) -> Any:
    """A tiny model whose chronos_config differs."""
    return tiny("chronos-bolt", 2, {**BOLT, "chronos_config": {**BOLT["chronos_config"], **settings}})


@pytest.mark.parametrize(
    ("original", "said"),
    [
        (lambda: tiny("chronos-t5"), "is a chronos-t5, a model in memory a chronos-bolt"),
        (lambda: changed(prediction_length=8), "its horizon is 8, that of a model in memory 16"),
        (lambda: changed(context_length=128), "its context is 128, that of a model in memory 256"),
        (lambda: changed(quantiles=[0.1, 0.5]), "its list of quantile levels is 0.1, 0.5, that of"),
    ],
)
def test_what_does_not_compare_is_refused(original: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as error:
        tsm.export(tiny("chronos-bolt"), THIRD, output=tmp_path / "b", original=original())
    assert "\n" not in str(error.value)
    assert "was distilled from" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--original", "gone/nowhere/x"), "--original gone/nowhere/x: no such file or folder"),
        (("--original", "whole", "--merge", "none"), "--original whole: nothing is merged"),
        (("--original", "bundle"), "bundle: is a bundle"),
    ],
)
def test_flags_that_cannot_be(
    words: tuple[str, ...],
    said: str,
    made: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(made.root)
    assert cli.main_export(["half", *words, "-o", "refused"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    assert said in lines[-1]
    assert not Path("refused").exists()


def test_a_graph_has_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(UsageError, match=r"--original has no effect on .*m\.onnx"):
        tsm.export(tmp_path / "m.onnx", THIRD, output=tmp_path / "b", original=tiny("chronos-bolt"))


def test_it_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("half.pt", "whole.pt"):
        Path(name).write_bytes(b"weights")
    assert cli.main_export(["half.pt", "--original", "whole.pt", "--json", "./whole.pt"]) == 2
    assert "--json ./whole.pt: is --original whole.pt, which would be lost" in capsys.readouterr().err
    assert Path("whole.pt").read_bytes() == b"weights"
