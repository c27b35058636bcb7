"""Whole distillations of tiny models: the loss falls, the checkpoint is the family's own, mistakes are one line."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chronos import BaseChronosPipeline

import tsmerge_export as tsm
from tests.models import tiny
from tests.tools.distill.subjects import HALF, QUICK, table
from tsmerge_export.checkpoint import load_model
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.families.trained import mark
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill import train
from tsmerge_export.tools.distill.result import Distilled
from tsmerge_export.verify.data import Table


@pytest.fixture(scope="module")
def bolt() -> Distilled:
    """One with everything: data, several ratios, a control."""
    return tsm.distill(
        tiny("chronos-bolt", seed=0), HALF, data=table(), elastic="0,1/2", control=True, **QUICK
    )


def test_the_loss_falls_and_the_original_stays_as_it_was() -> None:
    model = tiny("chronos-bolt", seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tsm.merging(model, MergeConfig(ratio="1/4")):
        found = tsm.distill(model, HALF, data=table(), **QUICK)
        assert tsm.eager.apply.current_run(model) is not None, "merging of the caller's own is still applied"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(weight.requires_grad for weight in found.model.parameters())
    first, *_, last = found.history.losses
    assert last[1] < first[1]
    assert found.history.steps == 12 and found.history.batch == 8
    curve = [point["mean"] for point in found.history.curve]
    assert len(curve) == 4 and found.history.curve[0]["step"] == 0
    # What is kept is what validation liked best, and the test agrees that it is better than before.
    assert found.history.best_step == found.history.curve[int(np.argmin(curve))]["step"] > 0
    scored = next(score for score in found.scores if score.merge == HALF)
    assert scored.after["wql"].percent < scored.before["wql"].percent
    assert scored.after["wql"].low <= scored.after["wql"].percent <= scored.after["wql"].high


def test_scores_are_those_of_the_merged_eager_model(bolt: Distilled) -> None:
    """Against forecasts made here, window by window, and their errors in numpy."""
    original = tiny("chronos-bolt", seed=0)
    values = table().values
    rows, horizon, context = len(values), 16, 256
    starts = np.arange(rows - horizon, int(rows * 0.8) - 1, -horizon)[::-1]
    starts = starts[starts >= rows - int(rows * 0.2)]

    def mse(model: Any, merge: MergeConfig, column: int) -> float:
        past = np.stack([values[s - context : s, column] for s in starts]).astype(np.float32)
        future = np.stack([values[s : s + horizon, column] for s in starts])
        with torch.no_grad(), tsm.merging(model, merge):
            median = model(context=torch.from_numpy(past)).quantile_preds[:, 1].numpy()
        deviation = values[: starts[0], column].std()
        return float(np.mean(((median - future) / deviation) ** 2))

    none = MergeConfig("none")
    for merge, score in ((s.merge, s) for s in bolt.scores):
        assert score.windows == len(starts)
        for model, side in ((original, score.before), (bolt.model, score.after)):
            changes = [100 * (mse(model, merge, c) / mse(original, none, c) - 1) for c in range(2)]
            assert side["mse"].percent == pytest.approx(float(np.median(changes)), rel=1e-3, abs=1e-3)
            assert side["mse"].worst == pytest.approx(max(changes), rel=1e-3, abs=1e-3)


def test_a_checkpoint_that_everyone_reads(bolt: Distilled, tmp_path: Path) -> None:
    folder = bolt.save(tmp_path / "model")
    assert {"config.json", "distillation.json", "model.safetensors"} <= {p.name for p in folder.iterdir()}
    series = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = bolt.model(context=series).quantile_preds
        upstream = BaseChronosPipeline.from_pretrained(folder).inner_model(context=series).quantile_preds
        loaded = load_model(folder)
        ours = loaded.model(context=series).quantile_preds  # type: ignore[operator]
    assert torch.equal(upstream, expected) and torch.equal(ours, expected)
    assert loaded.trained == bolt.trained
    assert bolt.trained.merge == HALF and bolt.trained.elastic == (Fraction(0), Fraction(1, 2))
    record = json.loads((folder / "distillation.json").read_text())
    assert record["recipe"]["steps"] == 12 and record["met"] == bolt.met
    assert record["scores"][0]["control"]["mse"]["percent"] == bolt.scores[0].control["mse"].percent  # type: ignore[index]
    assert record["versions"]["torch"] == torch.__version__


def test_it_names_the_weights_that_taught_it(bolt: Distilled, tmp_path: Path) -> None:
    weights = hashlib.sha256()
    for name, tensor in sorted(tiny("chronos-bolt", seed=0).state_dict().items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    folder = bolt.save(tmp_path / "model")
    for file, key in (("config.json", "tsmerge"), ("distillation.json", "trained")):
        assert json.loads((folder / file).read_text())[key]["teacher"] == weights.hexdigest()


def test_an_elastic_one_is_chosen_by_the_mean_over_its_ratios(bolt: Distilled) -> None:
    for point in bolt.history.curve:
        assert sorted(point["increase"]) == ["0", "1/2"]
        assert point["mean"] == pytest.approx(np.mean(list(point["increase"].values())))
    assert bolt.history.curve[0]["increase"]["0"] == 0
    assert {score.ratio for score in bolt.scores} == {Fraction(0), Fraction(1, 2)}


def test_the_control_is_trained_by_the_same_steps_and_never_merges(bolt: Distilled) -> None:
    assert bolt.control is not None
    assert (bolt.control.steps, bolt.control.batch) == (bolt.history.steps, bolt.history.batch)
    assert [list(point["increase"]) for point in bolt.control.curve] == [["0"]] * 4
    # At the start the student is the teacher.
    alone = tsm.distill(
        tiny("chronos-bolt", seed=0), HALF, data=table(), control=True, **{**QUICK, "steps": 1}
    )
    assert alone.control is not None and alone.control.losses[0][2] < 1e-5


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other, third = (
        tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(), **{**QUICK, "steps": 3}, seed=seed)
        for seed in (0, 0, 1)
    )
    weights = [found.model.state_dict() for found in (one, other, third)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert not all(torch.equal(value, weights[2][name]) for name, value in weights[0].items())


_ATTENTION = "encoder.block.0.layer.0.SelfAttention.q.weight"
_DENSE = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
_NORM = "encoder.block.0.layer.0.layer_norm.weight"


@pytest.mark.parametrize(
    ("trainable", "moves", "stays"), [("norm+attention", _ATTENTION, _DENSE), ("lora:2", _DENSE, _NORM)]
)
def test_some_weights_alone(trainable: str, moves: str, stays: str) -> None:
    original = tiny("chronos-bolt", seed=0).state_dict()
    # Kept whatever validation says: one validation, of weights that are better than random ones.
    found = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(), trainable=trainable, **QUICK)
    trained = found.model.state_dict()
    assert trained.keys() == original.keys()
    assert found.history.best_step > 0
    assert not torch.equal(trained[moves], original[moves])
    assert torch.equal(trained[stays], original[stays])
    if trainable.startswith("lora"):
        assert int(torch.linalg.matrix_rank(trained[moves] - original[moves], rtol=1e-4)) <= 2


def test_a_budget_becomes_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what a step takes: a minute has room for ten of six seconds, less what two validations take."""
    measured = train.Training._measured

    def slow(self: train.Training, budget: float) -> float:
        assert 0 < measured(self, budget) < budget
        return 6.0

    monkeypatch.setattr(train.Training, "_measured", slow)
    settings: dict[str, Any] = {
        "budget": "1min",
        "batch": 4,
        "validations": 2,
        "patience": None,
        "threads": 1,
    }
    found = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), **settings)
    assert 5 <= found.history.steps <= 10
    assert [point["step"] for point in found.history.curve] == [
        0,
        found.history.steps // 2,
        found.history.steps,
    ]


def test_as_many_windows_are_tested_as_are_asked_for() -> None:
    found = tsm.distill(
        tiny("chronos-bolt", seed=0), HALF, data=table(columns=1), windows=6, **{**QUICK, "steps": 1}
    )
    assert {score.windows for score in found.scores} == {6}


def test_without_data_it_learns_from_synthetic_series() -> None:
    found = tsm.distill(tiny("chronos-bolt", seed=0), HALF, **{**QUICK, "steps": 2})
    assert {score.data for score in found.scores} == {"synthetic series"}
    assert all(math.isfinite(change.percent) for score in found.scores for change in score.after.values())


def test_a_teacher_that_needs_merging_is_told_of() -> None:
    model = tiny("chronos-bolt", seed=0)
    mark(model, tsm.Trained(HALF, unmerged=1.04))
    found = tsm.distill(model, HALF, data=table(columns=1), **{**QUICK, "steps": 1})
    assert found.notes[0].startswith("the teacher's weights were trained for local k=1 ratio=1/2")
    assert "where they lose 104.0 %: give the original model instead" in found.notes[0]
    mark(model, tsm.Trained(HALF, unmerged=0.0))
    assert not tsm.distill(model, HALF, data=table(columns=1), **{**QUICK, "steps": 1}).notes


def flat(rows: int = 1200) -> Table:
    return Table("flat", ("a", "b"), np.ones((rows, 2)))


@pytest.mark.parametrize(
    ("arguments", "says", "error"),
    [
        ({"data": flat()}, "--data flat: no column to work with: column 'a' is constant", UsageError),
        (
            {"data": Table("empty", ("a",), np.full((1200, 1), np.nan))},
            "column 'a' holds no values",
            UsageError,
        ),
        ({"data": table(90)}, "--data waves: 90 rows are too few", UsageError),
        ({"merge": MergeConfig("none")}, "--merge none: there is nothing to distill for", UsageError),
        (
            {"merge": MergeConfig(ratio="1/4"), "elastic": "0,1/2"},
            "--ratio 1/4 is not among --elastic",
            UsageError,
        ),
        ({"steps": 3, "budget": "1min"}, "--steps and --budget exclude each other", UsageError),
        ({"resume": True}, "--resume needs the folder", UsageError),
        ({"context": 300, "data": table()}, "--context 300: the model reads at most 256 steps", UsageError),
        ({"device": "cuda:77"}, "--device cuda:77: PyTorch sees", UsageError),
        ({"merge": MergeConfig(layers=(7,))}, "--layers 7 is out of range", UsageError),
        ({"family": "chronos-t5"}, "the model is a chronos-bolt, not a chronos-t5", UsageError),
    ],
)
def test_mistakes_are_one_line(arguments: dict[str, Any], says: str, error: type[TsmergeError]) -> None:
    with pytest.raises(error) as caught:
        tsm.distill(
            tiny("chronos-bolt", seed=0),
            arguments.pop("merge", HALF),
            **{"steps": 1, "batch": 2, **arguments},
        )
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_what_cannot_be_trained(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(UnsupportedError, match="a graph has no weights"):
        tsm.distill(path, HALF)
    with pytest.raises(UnsupportedError, match="patchtsmixer: no token can be merged"):
        tsm.distill(tiny("patchtsmixer"), HALF)


def test_old_output_stays(bolt: Distilled, tmp_path: Path) -> None:
    folder = bolt.save(tmp_path / "model")
    old = (folder / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="exists already; add --force"):
        bolt.save(folder)
    assert bolt.save(folder, force=True) == folder
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds mine\.txt, which no distillation has written"):
        bolt.save(folder, force=True)
    assert (folder / "model.safetensors").read_bytes() == old and (folder / "mine.txt").exists()
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        bolt.save(file, force=True)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
