"""Recipes: what they take, and the line that each mistake gets."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
import torch

from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.distill.settings import BUDGET, Recipe, default_rate, parse_elastic, seconds

QUARTER = MergeConfig(ratio="1/4", k=1)


def test_times() -> None:
    assert [seconds(text) for text in ("30s", "15min", "1.5h", " 2 min ")] == [30, 900, 5400, 120]
    assert Recipe().budget == BUDGET and Recipe().steps is None
    assert Recipe(steps=3).budget is None
    assert Recipe(budget="2min").budget == 120


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 5, "budget": "1min"}, "--steps and --budget exclude each other"),
        ({"budget": "soon"}, "--budget 'soon' is not a time"),
        ({"budget": 0}, "--budget 0 is not a time above 0"),
        ({"steps": 0}, "--steps 0"),
        ({"batch": 0}, "--batch 0"),
        ({"lr": 2}, "--lr 2"),
        ({"seed": -1}, "--seed -1"),
        ({"device": "tpu"}, "--device tpu"),
        ({"trainable": "lora"}, "--trainable lora is not known"),
        ({"trainable": "lora:0"}, "--trainable lora:0"),
        ({"elastic": (Fraction(1, 4),)}, "--elastic names one ratio"),
        ({"elastic": ("0", "0")}, "--elastic names one ratio"),
        ({"elastic": ("0", "3/4")}, "--elastic 3/4 is out of range"),
        ({"max_increase": float("nan")}, "--max-increase nan"),
        ({"context": 0}, "--context 0"),
        ({"ema": 1.0}, "ema 1.0"),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**settings)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_elastic_ratios_are_exact_and_in_order() -> None:
    expected = (Fraction(0), Fraction(1, 10), Fraction(1, 4), Fraction(1, 2))
    assert parse_elastic("1/2,0,0.1,25%") == expected
    recipe = Recipe(elastic=("0", 0.1, "1/4", Fraction(1, 2)))  # type: ignore[arg-type]
    assert recipe.elastic == expected
    methods = [(point.method, point.ratio) for point in recipe.points(QUARTER)]
    assert methods == [("none", None), *(("local", ratio) for ratio in expected[1:])]
    assert Recipe().points(QUARTER) == (QUARTER,)
    assert json.loads(json.dumps(recipe.to_dict()))["elastic"] == ["0", "1/10", "1/4", "1/2"]


def test_elastic_needs_one_ratio_that_is_among_them() -> None:
    recipe = Recipe(elastic="0,1/10,1/2")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--ratio 1/4 is not among --elastic 0,1/10,1/2"):
        recipe.points(QUARTER)
    for merge in (
        MergeConfig("dynamic"),
        MergeConfig(r=2),
        MergeConfig(ratio=(Fraction(1, 2), Fraction(1, 4))),
    ):
        with pytest.raises(UsageError, match="--elastic varies one ratio"):
            recipe.points(merge)


def test_a_device_that_is_not_there_is_a_mistake() -> None:
    assert Recipe(device="cpu").torch_device() == torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(UsageError, match=rf"--device cuda:{count}: PyTorch sees {count} CUDA device"):
        Recipe(device=f"cuda:{count}").torch_device()


def test_larger_models_learn_at_a_lower_rate() -> None:
    assert default_rate(200_000) == 1e-3
    assert default_rate(100_000_000) == pytest.approx(1e-4)
