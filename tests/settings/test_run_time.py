"""A ratio that is chosen when a file runs, as a setting: read, kept, refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from tests.models import tiny
from tsmerge_export import MergeConfig, families
from tsmerge_export.backends.target import Target
from tsmerge_export.eager.apply import merging
from tsmerge_export.eager.default import settle
from tsmerge_export.eager.trained import filled, remark
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings import registry
from tsmerge_export.settings.trained import Trained


def test_the_default_is_part_of_the_setting() -> None:
    merge = MergeConfig("local", ratio="runtime:25%", k=3)
    assert merge.at_run_time and not merge.open and merge.default_ratio == Fraction(1, 4)
    assert merge.to_dict()["ratio"] == "runtime:1/4"
    assert MergeConfig.from_dict(merge.to_dict()) == merge
    assert "ratio=runtime:1/4" in merge.describe() and "runtime:1/4" in repr(merge)
    assert merge.amount(0, 4) == (0, Fraction(1, 4))
    assert merge.fixed(Fraction(1, 3)) == MergeConfig("local", ratio="1/3", k=3)
    assert merge.fixed(Fraction(0)) == MergeConfig("none")
    assert not MergeConfig(ratio="1/4").at_run_time and MergeConfig(ratio="1/4").default_ratio is None


def test_without_a_default_it_is_left_to_the_family() -> None:
    merge = MergeConfig("global", ratio="runtime")
    assert merge.open and merge.at_run_time
    family, model = families.get("chronos-bolt"), tiny("chronos-bolt")
    settled = settle(merge, family, model)
    usual = settle(MergeConfig("global", ratio="auto"), family, model).merge.ratio
    assert settled.merge.default_ratio == usual
    assert "where a run chooses none" in str(settled.note)


def test_the_default_is_what_the_weights_were_trained_for() -> None:
    family, model = families.get("chronos-bolt"), tiny("chronos-bolt")
    trained = Trained(MergeConfig("local", ratio="1/3"), ("0", "1/3", "1/2"))  # type: ignore[arg-type]
    merge = filled(MergeConfig("local", ratio="runtime"), trained)
    assert merge == MergeConfig("local", ratio="runtime:1/3")
    assert remark(merge, trained, family, model) is None
    assert remark(MergeConfig("local", ratio="runtime:1/7"), trained, family, model) is not None
    # A number of tokens, or one ratio for each layer, is no ratio for all.
    for own in ({"r": 3}, {"ratio": ("1/2", "1/3")}, {"ratio": "1/3", "schedule": "linear"}):
        open_ = MergeConfig("local", ratio="runtime")
        assert filled(open_, Trained(MergeConfig("local", **own))) == open_


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ratio": ["runtime", "1/4"]}, "one ratio for all layers; leave out the list"),
        ({"ratio": "runtime,1/4"}, "one ratio for all layers; leave out the list"),
        ({"ratio": "runtime", "r": 3}, "exclude each other"),
        ({"ratio": "runtime", "schedule": "linear"}, "leave out --schedule linear"),
        ({"ratio": "runtime:3/4"}, "out of range"),
        ({"ratio": "runtime:0"}, "out of range"),
        ({"ratio": "runtime:"}, "is not a number"),
        ({"ratio": "runtime:333/2000"}, "a denominator of at most 1024; the nearest is"),
        ({"method": "dynamic", "ratio": "runtime"}, "--ratio has no effect with --merge dynamic"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        MergeConfig(**given)
    assert "\n" not in str(caught.value)


def test_a_method_without_such_a_body_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of other packages may be."""
    found = {name: registry.spec(name) for name in registry.built_in()}
    found["pitome"] = replace(found["pitome"], run_time=False)
    monkeypatch.setattr(registry, "spec", found.__getitem__)
    able = "it goes with --merge local or global or ssm"
    with pytest.raises(UsageError, match=f"--ratio runtime does not go with --merge pitome; {able}"):
        MergeConfig("pitome", ratio="runtime")


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_runtimes_that_plan_lengths_refuse_it_before_any_work(runtime: str) -> None:
    with pytest.raises(
        UnsupportedError, match=rf"--ratio runtime: {runtime} must know all lengths from the shapes"
    ) as caught:
        Target(runtime).check(MergeConfig(ratio="runtime"), inline=False)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_a_live_model_merges_by_the_ratio_that_is_chosen() -> None:
    model = tiny("chronos-bolt")
    with merging(model, MergeConfig("local", ratio="runtime:1/4")) as run:
        assert run.ratio is None
        run.ratio = "33%"
        assert run.ratio == Fraction(33, 100)
        with pytest.raises(UsageError, match="is not a ratio"):
            run.ratio = 0.7
        run.ratio = None
    with (
        merging(model, MergeConfig("local", ratio="1/4")) as run,
        pytest.raises(UsageError, match="ratio is chosen at run time only with --ratio runtime"),
    ):
        run.ratio = "1/3"
