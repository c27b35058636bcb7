"""The float32 noise of graphs: against torch in float64, and what parity makes of it."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.graphs.bundles import bundle_of
from tests.graphs.noisy import Residue, write
from tests.weights import changed_weight
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.errors import VerdictError
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs import noise, verdicts
from tsmerge_export.graphs.model import GraphModel, GraphOptions, load_graph_model
from tsmerge_export.graphs.noise import GraphNoise, Weights
from tsmerge_export.graphs.reference import Reference
from tsmerge_export.rewrite.align import Aligner
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.typed import written
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks

MERGE = MergeConfig(ratio="1/4", min_tokens=2)
#: The residue's factors: where it is a few parts in ten thousand of the output, and where it is a tenth and more.
NOISY, DROWNED = 300.0, 1e5


def built(file: Path) -> tuple[GraphModel, Built]:
    model = load_graph_model(file, GraphOptions(token_mask="mask"))
    folder = file.parent
    return model, merge_and_lower(
        model.component, model.measured, MERGE, inline=False, folder=folder, scratch=folder, stay={}
    )


def parity(model: GraphModel, made: Built, **options: Any) -> dict[str, Any]:
    checks = Checks(threads=1, quick=True, **options)
    found: dict[str, Any] = written(verdicts.parity(model, MERGE, made, checks, progress=lambda *_: None))
    return found


@cache
def encoder(level: float) -> Residue:
    return Residue(level, positions="absolute")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Of an encoder whose float64 torch computes throughout."""
    file = write(encoder(NOISY), tmp_path_factory.mktemp("noise") / "m.onnx")
    model, made = built(file)
    return verdicts.reference_of(model, MERGE, made, 1)


def feed(seed: int, batch: int = 3, tokens: int = 21) -> Arrays:
    mask = np.ones((batch, tokens), np.int64)
    mask[0, :5] = 0
    x = np.random.default_rng(seed).standard_normal((batch, tokens, 4))
    return {"x": x.astype(np.float32), "mask": mask}


def in_torch(level: float, inputs: Arrays) -> np.ndarray:
    """Merging written by hand, in float64."""
    wide = Residue(level, positions="absolute").double()
    with torch.no_grad():
        x, mask = torch.from_numpy(inputs["x"]).double(), torch.from_numpy(inputs["mask"])
        return wide.merged_forward(x, mask, ratio="1/4", min_tokens=2).numpy()


def test_float64_is_that_of_torch_and_the_noise_what_float32_is_from_it(reference: Reference) -> None:
    inputs = feed(0)
    outputs, steps = reference.traced(inputs)
    exact = in_torch(NOISY, inputs)
    own = GraphNoise(reference)
    wide, _ = own._run(inputs, 0, steps)
    assert wide["y"].dtype == np.float64
    np.testing.assert_allclose(wide["y"], exact, rtol=1e-9, atol=1e-9)
    found = own.measure(inputs, outputs, steps, 3)
    error = np.abs(outputs["y"] - exact).reshape(3, -1).max(1)
    scale = np.abs(exact).reshape(3, -1).max(1)
    assert (error > 2e-5 * scale).all()
    assert (found["y"] >= 0.999 * error).all() and (found["y"] < 10 * error).all()
    assert own.fault is None
    mean = own.measure(inputs, outputs, steps, 1)  # where the batch is not first: as one row
    np.testing.assert_array_equal(mean["y"], [found["y"].max()])


def test_merges_follow_another_run(reference: Reference) -> None:
    """Decisions of another input, and then its own again: what is merged is not what would be chosen."""
    (_, one), (plain, two) = (reference.traced(feed(seed)) for seed in (1, 2))
    assert not all(torch.equal(a.kept, b.kept) for a, b in zip(one, two, strict=True))
    led, followed = reference.traced(feed(2), one)
    assert all(torch.equal(a.target, b.target) for a, b in zip(one, followed, strict=True))
    assert np.abs(led["y"] - plain["y"]).max() > 0.1
    again, _ = reference.traced(feed(2), two)
    np.testing.assert_array_equal(again["y"], plain["y"])


def test_weights_of_a_draw_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    base: Arrays = {
        "w": np.linspace(0.1, 0.9, 12, dtype=np.float32).reshape(3, 4),
        "large": np.full(40, 0.3, np.float32),
        "exponent": np.array(2.5, np.float32),
        "mask": np.array([0, 1, -1], np.float32),
        "axes": np.array([1, 2]),
    }
    monkeypatch.setattr(noise, "_LARGEST", 100)
    plain, moved, wide = Weights(base, 0), Weights(base, 1), Weights(base, 1, wide=True)
    assert all(plain[name] is base[name] for name in base) and list(moved) == list(base)
    assert all(weights["large"] is base["large"] for weights in (moved, wide))
    share = np.abs(moved["w"] / base["w"].astype(np.float64) - 1)
    assert (share <= 1.1 * 2.0**-20).all() and (share > 0).sum() > 6
    assert wide["w"].dtype == np.float64
    np.testing.assert_array_equal(wide["w"], moved["w"])  # the same draw in both
    assert not np.array_equal(Weights(base, 2)["w"], moved["w"])
    for name in ("exponent", "mask", "axes"):
        np.testing.assert_array_equal(moved[name], base[name])


def test_a_large_weight_stays_float32(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads one runs in float32: the noise is less then, but there."""
    inputs = feed(0)
    outputs, steps = reference.traced(inputs)
    whole = GraphNoise(reference).measure(inputs, outputs, steps, 3)["y"]
    monkeypatch.setattr(noise, "_LARGEST", 300)
    own = GraphNoise(reference)
    found = own.measure(inputs, outputs, steps, 3)["y"]
    assert own.fault is None and (found > whole / 20).all() and not np.array_equal(found, whole)


def test_noise_that_cannot_be_measured_excuses_nothing(
    reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = feed(0)
    outputs, steps = reference.traced(inputs)

    def broken(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    own = GraphNoise(reference)
    monkeypatch.setattr(own._wide, "run", broken)
    assert not own.measure(inputs, outputs, steps, 3)["y"].any()
    assert own.fault is not None and "cannot be measured" in own.fault and "no such kernel" in own.fault


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.slow)])
def noisy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GraphModel, Built]:
    return built(write(Residue(NOISY, request.param), tmp_path_factory.mktemp("noisy") / "m.onnx"))


def test_a_right_export_passes_by_its_noise_alone(
    noisy: tuple[GraphModel, Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parity(*noisy)
    assert found["passed"] and found["failures"] == []
    assert found["noisy_rows"] > 0 and 0 < found["times_noise"] <= 4 and found["max_rel"] > 1e-4
    compared = found["rows"] - found["decision_flips"]
    said = f"{found['noisy_rows']} of {compared} rows passed by the model's own float32 noise"
    assert any(warning.startswith(said) for warning in found["warnings"])
    monkeypatch.setattr(verdicts, "_prove_reference", lambda *_: None)
    plain = parity(*noisy, atol=1e-4)  # a tolerance that was given is meant
    assert not plain["passed"] and ": y: error" in plain["failures"][0]
    assert "noise" not in plain["failures"][0]


def test_one_per_cent_of_a_weight_is_found_beyond_the_noise(
    noisy: tuple[GraphModel, Built], tmp_path: Path
) -> None:
    model, made = noisy
    right = tmp_path / "right.onnx"
    shutil.copy(made.merged, right)
    seen = set()
    try:
        for seed in (1, 2, 5, 10):
            seen.add(changed_weight(right, made.merged, seed))
            found = parity(model, made)
            assert not found["passed"], seen
            assert found["kept_mismatches"] or "times the model's own float32 noise" in found["failures"][0]
    finally:
        shutil.copy(right, made.merged)
    assert len(seen) == 4


def test_positions_that_are_wrong_are_found_beyond_the_noise(
    noisy: tuple[GraphModel, Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Aligner.__init__

    def compact(self: Aligner, emit: Any, **options: Any) -> None:
        init(self, emit, **{**options, "compact": True})

    monkeypatch.setattr(Aligner, "__init__", compact)
    model, _ = noisy
    wrong = merge_and_lower(
        model.component, model.measured, MERGE, inline=False, folder=tmp_path, scratch=tmp_path, stay={}
    )
    assert not parity(model, wrong)["passed"]


def test_an_output_that_is_noise_is_not_proved(tmp_path: Path) -> None:
    file = write(Residue(DROWNED), tmp_path / "m.onnx")
    with pytest.raises(
        VerdictError, match=r"parity failed.*y: in \d+ of \d+ rows the value itself is float32 noise"
    ):
        bundle_of(file, MERGE, token_mask="mask")
