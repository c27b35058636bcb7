"""Training through fake quantisation: the quantiser's formulas, the quantised file, gradients, whole trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny
from tests.precision import formulas
from tests.precision.networks import INNER, WIDTH, network
from tests.tools.distill.subjects import HALF, QUICK, table
from tests.tools.distill.test_gradients import FIRST
from tsmerge_export import families
from tsmerge_export.cli import main
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.eager.trained import settle_precision
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.precision import read_back
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import BLOCKS, as_products, quantised
from tsmerge_export.report.html.commands import commands
from tsmerge_export.settings.precision import FLOAT32, Precision
from tsmerge_export.settings.trained import Trained
from tsmerge_export.tools.distill import distill as work
from tsmerge_export.tools.distill import rounding as subject
from tsmerge_export.tools.distill.result import Distilled
from tsmerge_export.tools.distill.rounding import Rounding, rounded_activations, rounded_weight, rounding_of
from tsmerge_export.tools.distill.settings import Recipe

KINDS = ["int8", "int8-weights", "int4-weights"]


def weight(rows: int = WIDTH, columns: int = INNER, seed: int = 0) -> torch.Tensor:
    """``[out, in]``; one row of nothing but zeros, one of one sign, one with a number that is far from the others."""
    made = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32))
    made[3] = 0
    made[5] = made[5].abs()
    made[7, 2] = 40
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_rounded_by_the_quantiser_s_formula(kind: str) -> None:
    given = weight()
    made = rounded_weight(given, kind).numpy().T
    if kind == "int8":
        numbers, scale = formulas.by_channel(given.numpy().T)
        wanted = numbers * scale
    else:
        bits = Precision(kind).bits
        found = formulas.by_block(given.numpy().T, bits, BLOCKS[bits])
        wanted = (found[0] - found[2]) * found[1]
    np.testing.assert_allclose(made, wanted, rtol=1e-6, atol=1e-7)
    assert np.abs(made - given.numpy().T).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_computes_what_the_quantised_file_does(kind: str) -> None:
    """Weights to the bit; results within what float32 sums over n numbers may be off: n * 2^-23 of the sum of sizes."""
    model = as_products(network())
    made = quantised(model, Precision(kind), ["first"])
    own = formulas.arrays(network())["w"]
    layer = torch.nn.Linear(WIDTH, WIDTH, bias=False)
    layer.weight.data = torch.from_numpy(own.T.copy())
    rounded = rounded_weight(layer.weight, kind).detach().numpy().T
    found = list(read_back.weights(made))
    assert found
    for each in found:
        np.testing.assert_array_equal(each.values.astype(np.float32), rounded)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((6, WIDTH)).astype(np.float32)
    for values in (x, np.abs(x) + 3, -np.abs(x), np.zeros_like(x)):
        (want,) = session.run(["a"], {"x": values})
        with Rounding(kind, ("0",)).on(torch.nn.Sequential(layer)), torch.no_grad():
            got = layer(torch.from_numpy(values)).numpy()
        size = np.abs(values).max() * np.abs(rounded).sum(0)
        assert (np.abs(got - want) <= WIDTH * 2.0**-23 * size).all()
        with torch.no_grad():
            plain = layer(torch.from_numpy(values)).numpy()
        assert not values.any() or np.abs(plain - want).max() > 1e-3


def test_activations_are_rounded_as_dynamic_quantize_linear_does() -> None:
    rng = np.random.default_rng(2)
    one = np.eye(8, dtype=np.int8)
    for values in (rng.standard_normal((5, 8)), rng.random((5, 8)) + 9, -rng.random((5, 8))):
        x = values.astype(np.float32)
        wanted = formulas.dynamically(x, one, np.ones(8))
        np.testing.assert_allclose(
            rounded_activations(torch.from_numpy(x)).numpy(), wanted, rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize(
    "round_it", [rounded_activations, *(lambda w, k=k: rounded_weight(w, k) for k in KINDS)]
)
def test_gradients_pass_straight_through(round_it: Callable[[torch.Tensor], torch.Tensor]) -> None:
    given = weight().requires_grad_()
    onto = torch.randn(given.shape, generator=torch.Generator().manual_seed(0))
    made = round_it(given)
    (made * onto).sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    passed = given.grad == onto
    # An end of a range may lie beyond the last number, by less than a step: there nothing passes.
    assert passed.float().mean() > 0.97
    assert (given.grad[~passed] == 0).all()


@pytest.mark.parametrize("name", sorted(FIRST))
def test_layers_of_every_family_round_inside_and_not_outside(name: str) -> None:
    family, core = families.for_model(tiny(name))
    objective = family.objective(core)
    assert objective is not None
    layers = tuple(n for n, module in core.named_modules() if isinstance(module, torch.nn.Linear))
    length = family.context(core) // 2
    walks = np.random.default_rng(1).normal(size=(3, length + objective.horizon)).cumsum(1).astype(np.float32)
    batch = objective.batch(core, walks[:, :length], walks[:, length:])

    def said() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return dict(objective.outputs(core, batch).values)

    before = said()
    with Rounding("int8", layers).on(core):
        rounded = said()
    after = said()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert any(not torch.equal(before[key], rounded[key]) for key in before)


@pytest.fixture(scope="module")
def found() -> tuple[Rounding, onnx.ModelProto]:
    """Of a tiny Chronos-Bolt, with the file that the layers were found in."""
    files: list[onnx.ModelProto] = []
    weights = subject._weights

    def noted(file: Path) -> set[bytes]:
        files.append(onnx.load(file))
        return weights(file)

    model = tiny("chronos-bolt", seed=0)
    family, core = families.for_model(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_weights", noted)
        rounding, note = rounding_of("int8", family, core, family.config_of(core))
    assert note is None
    return rounding, files[0]


def test_the_layers_are_those_that_are_quantised_in_the_file(found: tuple[Rounding, onnx.ModelProto]) -> None:
    rounding, file = found
    model = tiny("chronos-bolt", seed=0)
    twin = as_products(file)
    for kind in KINDS:
        low = quantised(twin, Precision(kind), [product.node for product in products(twin)])
        values = {each.values.astype(np.float32).tobytes() for each in read_back.weights(low)}
        mine = {
            rounded_weight(model.get_submodule(name).weight, kind).detach().numpy().T.tobytes()  # type: ignore[arg-type]
            for name in rounding.layers
        }
        assert mine == values
    low = quantised(twin, Precision("int8"), [product.node for product in products(twin)])
    context = np.random.default_rng(0).standard_normal((3, 96)).cumsum(1).astype(np.float32)
    feed = {"context": context}
    results = [
        ort.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for one in (low, twin)
    ]
    with rounding.on(model), torch.no_grad():
        got = model(context=torch.from_numpy(context)).quantile_preds.numpy()
    # A number that float32 noise takes to the next step moves what follows by a step of one of many numbers.
    effect = np.abs(results[0] - results[1])
    assert np.abs(got - results[0]).max() <= 0.2 * effect.max()
    assert np.abs(got - results[0]).mean() <= 0.1 * effect.mean()


@pytest.fixture
def known(found: tuple[Rounding, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> Rounding:
    """Finding the layers takes an export; what is found is the same."""

    def again(kind: str, *_: Any) -> tuple[Rounding, None]:
        return (replace(found[0], kind=kind) if kind != "fp32" else subject.NOTHING), None

    monkeypatch.setattr(work, "rounding_of", again)
    return found[0]


def test_a_training_rounds_and_its_weights_do_not(known: Rounding) -> None:
    original = tiny("chronos-bolt", seed=0)
    settings = {**QUICK, "precision": "int4-weights", "control": True}
    made = tsm.distill(tiny("chronos-bolt", seed=0), HALF, data=table(), **settings)
    first, *_, last = made.history.losses
    assert last[1] < first[1] and made.history.best_step > 0
    assert made.trained.precision == made.recipe.precision == "int4-weights"
    assert made.control is not None
    assert not any("forward" in vars(module) for module in made.model.modules())
    # Weights between the steps of 4 bits: they were trained, not rounded for good.
    one = made.model.get_submodule(known.layers[0]).weight
    assert not torch.equal(one, rounded_weight(one, "int4-weights"))  # type: ignore[arg-type]

    # The figures are those of rounded layers; the control's and the original's are not.
    def mse(model: Any, merge: tsm.MergeConfig, rounding: Rounding) -> float:
        values, horizon, context = table().values, 16, 256
        starts = np.arange(len(values) - horizon, int(len(values) * 0.8) - 1, -horizon)[::-1]
        starts = starts[starts >= len(values) - int(len(values) * 0.2)]
        past = np.stack([values[s - context : s, 0] for s in starts]).astype(np.float32)
        future = np.stack([values[s : s + horizon, 0] for s in starts])
        with rounding.on(model), torch.no_grad(), tsm.merging(model, merge):
            median = model(context=torch.from_numpy(past)).quantile_preds[:, 1].numpy()
        return float(np.mean((median - future) ** 2))

    single = tsm.distill(
        tiny("chronos-bolt", seed=0), HALF, data=replace(table(), columns=("c0",), values=table().values[:, :1]),
        **{**settings, "control": False},
    )  # fmt: skip
    score = next(score for score in single.scores if score.merge == HALF)
    none, low = tsm.MergeConfig("none"), replace(known, kind="int4-weights")
    base = mse(original, none, subject.NOTHING)
    for side, model in ((score.before, original), (score.after, single.model)):
        assert side["mse"].percent == pytest.approx(
            100 * (mse(model, HALF, low) / base - 1), rel=1e-3, abs=1e-3
        )
        assert side["mse"].percent != pytest.approx(
            100 * (mse(model, HALF, subject.NOTHING) / base - 1), rel=1e-3, abs=1e-3
        )


@pytest.mark.parametrize("trainable", ["all", "lora:2"])
def test_a_training_that_was_interrupted_goes_on_to_the_bit(
    trainable: str, known: Rounding, tmp_path: Path
) -> None:
    class Impatient(NoProgress):
        def update(self, done: int, total: int) -> None:
            if done == 2:
                raise KeyboardInterrupt

    settings = {**QUICK, "steps": 4, "validations": 2, "precision": "int8", "trainable": trainable}

    def distilled(state: Path, **more: Any) -> Distilled:
        model = tiny("chronos-bolt", seed=0)
        return tsm.distill(model, HALF, data=table(600), state=state, resume=True, **{**settings, **more})

    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "cut", progress=Impatient())
    with pytest.raises(UsageError, match="was made with another precision"):
        distilled(tmp_path / "cut", precision="fp32")
    theirs = distilled(tmp_path / "whole").model.state_dict()
    for name, value in distilled(tmp_path / "cut").model.state_dict().items():
        assert torch.equal(value, theirs[name]), name


def test_what_cannot_be_trained_for_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("fp16", "int8-static", "int9"):
        with pytest.raises(
            UsageError, match=f"--precision {kind}: training rounds for int8, int8-weights, int4-weights"
        ):
            Recipe(precision=kind)
    with pytest.raises(UsageError, match="precision is none of fp32, int8"):
        Trained(HALF, precision="bf16")
    assert main(["distill", str(tmp_path), "--precision", "fp16"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    model = tiny("chronos-bolt", seed=0)
    family, core = families.for_model(model)
    monkeypatch.setattr(subject, "_weights", lambda file: set())
    built = SimpleNamespace(merged=None)
    monkeypatch.setattr(subject.Compilation, "merged", lambda self, component, folder: built)
    with pytest.raises(UnsupportedError, match="--precision int8: no linear layer of the model"):
        rounding_of("int8", family, core, family.config_of(core))


def test_files_are_in_the_precision_that_weights_were_trained_for() -> None:
    trained = Trained(HALF, precision="int8")
    assert Trained.from_dict(trained.to_dict()) == trained
    assert trained.describe().endswith(" in int8")
    int4 = Precision("int4-weights")
    for asked, possible, kind, words in (
        (None, True, "int8", "files in int8, as this checkpoint was trained for"),
        (None, False, "fp32", "which this target has none of: fp32 instead"),
        (Precision("int8", ("a",)), True, "int8", None),
        (FLOAT32, True, "fp32", "in fp32 their error may be larger"),
        (int4, True, "int4-weights", "in int4-weights their error may be larger"),
    ):
        found, note = settle_precision(asked, trained, lambda own, possible=possible: possible)  # type: ignore[misc]
        assert found.kind == kind and (asked is None or found == asked)
        assert (note is None) if words is None else (note is not None and words in note)
    for other in (None, Trained(HALF)):
        assert settle_precision(None, other, lambda own: True) == (FLOAT32, None)
        assert settle_precision(int4, other, lambda own: True) == (int4, None)


@pytest.mark.slow
def test_from_training_to_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.quick import quick_verdicts

    quick_verdicts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    tiny("chronos-bolt", seed=0).save_pretrained("model")  # type: ignore[operator]
    np.savetxt("data.csv", table().values, delimiter=",", header="a,b", comments="")
    flags = ["--steps", "4", "--batch", "4", "--context", "96", "--windows", "5", "--threads", "1"]
    assert main(["distill", "model", "--data", "data.csv", *flags, "--precision", "int8", "-o", "made"]) == 0
    page = Path("made/report.html").read_text()
    assert "rounded as files in int8 are" in page and "merged, in int8, against unmerged" in page
    assert "--precision int8" in page
    low = tsm.export("made", output="int8", data="data.csv")
    assert low.contents.precision is not None and low.contents.precision.kind == "int8"
    assert any("files in int8, as this checkpoint was trained for" in note for note in low.contents.notes)
    assert "--precision int8" in dict(commands(low.report))["export"]
    full = tsm.export("made", output="fp32", data="data.csv", precision=Precision())
    assert full.contents.precision is None
    assert any("in fp32 their error may be larger" in note for note in full.contents.notes)
    assert "--precision fp32" in dict(commands(full.report))["export"]
