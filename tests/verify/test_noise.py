"""The model's own float32 noise: against closed forms, and what parity makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.families.harness import Subject
from tests.models import CONFIGS, TST
from tests.verify import standin
from tests.weights import changed_weight
from tsmerge_export import families
from tsmerge_export.eager.apply import merging
from tsmerge_export.merge.run import MergeRun
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, noise, parity, tolerances
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.decisions import Verdict
from tsmerge_export.verify.parity import CaseResult, ParityReport
from tsmerge_export.verify.tolerances import Tolerance

NONE = MergeConfig(method="none")


class Sums(nn.Module):
    """A sum of values that cancel, a product that does not, and whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        total = torch.zeros_like(x[:, 0])
        for i in range(x.shape[1]):  # one after the other, so that float32 rounds every time
            total = total + x[:, i]
        return {"sum": total[:, None], "product": x * self.weight, "count": (x > 0).sum(1, keepdim=True)}


class Part:
    """As much of a component as the noise needs."""

    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return model(inputs["x"])  # type: ignore[no-any-return]


class Narrow(Part):
    """It asks for float32 by name."""

    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return model(inputs["x"] @ torch.ones(300, 300, dtype=torch.float32))  # type: ignore[no-any-return]


@contextmanager
def unmerged(model: nn.Module, merge: MergeConfig) -> Iterator[MergeRun]:
    yield MergeRun({})


def cancelling(rows: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    half = rng.normal(size=(rows, 150)) * 1000
    return np.concatenate([half, -half], axis=1).astype(np.float32)


def test_noise_of_a_sum_that_cancels_and_of_a_product() -> None:
    x = cancelling(4)
    model = Sums()
    found = noise.measure(Part(), model, NONE, {"x": x}, unmerged)  # type: ignore[arg-type]
    want = np.zeros(4, np.float32)
    for column in x.T:
        want += column
    exact = x.astype(np.float64).sum(1)
    assert (found["sum"] >= np.abs(want - exact)).all()
    # At most 300 roundings of partial sums, which stay below 40,000 or so.
    assert (found["sum"] > 1e-4).all() and (found["sum"] < 300 * 40_000 * 2.0**-24).all()
    # One rounding.
    scale = np.abs(x).max(1) * 3
    assert (found["product"] <= 1.01 * scale * 2.0**-24).all() and (found["product"] > 0).all()
    assert "count" not in found
    assert model.weight.item() == 3.0 and model.weight.dtype == torch.float32


def test_a_model_that_asks_for_float32_is_measured_against_itself() -> None:
    x = np.random.default_rng(1).normal(size=(2, 300)).astype(np.float32)
    found = noise.measure(Narrow(), Sums(), NONE, {"x": x}, unmerged)  # type: ignore[arg-type]
    scale = np.abs(x.astype(np.float64).sum(1)) * 3
    assert (found["product"] > 2.0**-26 * scale).all() and (found["product"] < 2.0**-18 * scale).all()


@pytest.mark.parametrize("merge", [MergeConfig(ratio="1/4"), MergeConfig(ratio="1/4", prop_attn=True)])
@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5", "chronos-2", "patchtst", "timesfm-2.5"])
def test_families_are_within_float32_of_float64_with_the_same_tokens(family: str, merge: MergeConfig) -> None:
    """Float64 decides by what float32 compared; otherwise outputs would be far apart where a decision is close."""
    subject = Subject(family)
    feed = subject.component.from_series(subject.model, corpus.series("seasonal", 2, 97))
    found = noise.measure(subject.component, subject.model, merge, feed, merging)
    want, _ = parity.run_eager(subject.component, subject.model, merge, feed)
    for name, own in found.items():
        scale = np.abs(want[name]).reshape(2, -1).max(1)
        assert (own <= 2e-5 * np.maximum(scale, 1e-3)).all(), name
        assert (own > 0).all() or name == "encoder_log_size"


def test_merging_follows_another_forward() -> None:
    model, merge = standin.Model(), MergeConfig(k=1, ratio="1/4")
    rng = np.random.default_rng(0)
    one, two = (torch.from_numpy(rng.normal(size=(2, 64)).astype(np.float32)) for _ in range(2))
    with standin.merging(model, merge) as run:
        run.record = True
        model(one)
        steps = list(run.steps)
        model(two)
        assert not all(torch.equal(a.kept, b.kept) for a, b in zip(steps, run.steps, strict=True))
        run.follow = steps
        x, _ = model(two)
        assert all(torch.equal(a.kept, b.kept) for a, b in zip(steps, run.steps, strict=True))
        run.record = False
        wide, _ = model.double()(two.double())
    assert wide.dtype == torch.float64
    assert 0 < (wide - x.double()).abs().max() < 1e-4
    assert not torch.equal(wide.float().double(), wide)  # means of merged tokens are not rounded to float32


def judged(got: float, own: float, want: float = 1.0) -> CaseResult:
    case = corpus.Case(corpus.ENTRIES[0], 1, 8, 0)
    values = [{"y": np.array([[value, 0.0]])} for value in (want, got, got)]
    return parity.judge(
        case, *values, np.array([Verdict.EQUAL]), np.array([False]), Tolerance(1e-5, 1e-5),
        measured=lambda: {"y": np.array([own])},
    )  # fmt: skip


def test_a_row_beyond_the_tolerance_passes_within_the_noise_alone() -> None:
    fine = judged(1 + 3e-4, 1e-4)
    assert (fine.failures, fine.noisy, fine.drowned) == ([], 1, {})
    assert fine.times_noise == pytest.approx(3) and fine.max_rel == pytest.approx(3e-4)
    far = judged(1 + 5e-4, 1e-4)
    assert "5.0 times the model's own float32 noise" in far.failures[0] and far.noisy == 0
    assert judged(1 + 1e-6, 1e-4).noisy == 0  # within the tolerance: nothing is measured
    assert judged(1 + 3e-4, 0.0).failures
    assert judged(np.nan, 1.0).failures  # no noise makes a number of another kind
    alone = judged(3e-9, 1e-9, want=1e-9)
    assert (alone.failures, alone.drowned) == ([], {"y": 1})


def test_an_output_that_is_noise_in_too_many_rows_is_not_proved() -> None:
    def report(drowned: int) -> ParityReport:
        case = CaseResult("a", False, 100, noisy=drowned, times_noise=1.5, drowned={"loc": drowned})
        return ParityReport("model", Tolerance(1e-5, 1e-5), [case])

    few, many = report(10), report(11)
    assert few.passed and len(few.warnings) == 2
    assert few.warnings[0].startswith("loc: in 10 of 100 rows the value itself is float32 noise")
    assert "at most 1.5 times" in few.warnings[1]
    assert not many.passed and many.failures[0].startswith("loc: in 11 of 100 rows")
    assert few.to_dict()["noisy_rows"] == 10 and few.to_dict()["times_noise"] == 1.5


def test_the_mean_of_a_series_without_one() -> None:
    """One variate, scaled by its deviation, four whole periods: the mean is noise; the verdict says so and passes."""
    subject = Subject(
        "time-series-transformer", {**TST, "scaling": "std", "context_length": 96, "encoder_layers": 1}
    )
    merge, entry = MergeConfig(ratio="1/4"), next(e for e in corpus.ENTRIES if e.name == "periodic")
    todo = [corpus.Case(entry, 2, length, seed) for length in (108, 192) for seed in range(4)]
    args = (subject.family, subject.component, subject.model, merge, subject.built(merge).merged)
    told = parity.check(*args, Checks(cases=todo, threads=1, atol=1e-4))
    assert not told.passed and all(": loc: error" in failure for failure in told.failures)
    report = parity.check(*args, Checks(cases=todo, threads=1))
    found = report.to_dict()
    assert 0 < found["noisy_rows"] <= 4 and found["times_noise"] < noise.FACTOR
    assert report.failures == [] or report.failures[0].startswith(
        "loc: in "
    )  # few series: a large share of them
    assert not [failure for case in report.cases for failure in case.failures]


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name == "chronos-bolt" else pytest.mark.slow)
        for name in CONFIGS
        if families.get(name).published is not None
    ],
)
def test_one_per_cent_of_a_weight_is_found_as_by_the_tolerance_alone(family: str, tmp_path: Path) -> None:
    subject = Subject(family)
    merges = subject.family.merge_points(subject.model).count > 0
    merge = MergeConfig(ratio="1/4") if merges else NONE
    context = subject.family.context(subject.model)
    todo = [corpus.Case(corpus.ENTRIES[i], 2, length, 0) for i in (0, 1) for length in (37, context)]
    args = (subject.family, subject.component, subject.model, merge)
    right, wrong = subject.built(merge).merged, tmp_path / "m.onnx"
    assert parity.check(*args, right, Checks(cases=todo, threads=1)).passed
    table, found = tolerances.end_to_end(family), 0
    for seed in range(6):
        name = changed_weight(right, wrong, seed)
        # By the plain tolerance alone. Some weights say nothing: the queries of a decoder of one token.
        plain = parity.check(*args, wrong, Checks(cases=todo, threads=1, atol=table.atol))
        assert parity.check(*args, wrong, Checks(cases=todo, threads=1)).passed == plain.passed, name
        found += not plain.passed
    assert found >= 1
