"""Merge settings: amounts by layer, schedules, and what contradicts what."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from fractions import Fraction
from typing import Any

import pytest

from tsmerge_export import ops
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.plan import METHODS, make_plan
from tsmerge_export.methods.method import Place
from tsmerge_export.report.html.commands import merge_flags
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.option import GENERAL, Choices


def amounts(config: MergeConfig, points: int) -> dict[int, tuple[Any, ...]]:
    """(r, ratio) of each planned layer."""
    return {
        layer: (
            step.attributes["r"],
            Fraction(int(step.attributes["ratio_num"]), int(step.attributes["ratio_den"])),
        )
        for layer, step in make_plan(config, points).items()
    }


def test_one_amount_for_all_layers() -> None:
    assert amounts(MergeConfig(ratio="25%"), 2) == {0: (0, Fraction(1, 4)), 1: (0, Fraction(1, 4))}
    assert amounts(MergeConfig(r=7, layers=(1,)), 3) == {1: (7, 0)}


@pytest.mark.parametrize("given", ["1/2,1/4,1/10", ["1/2", 0.25, "10%"], (Fraction(1, 2), "0.25", 0.1)])
def test_a_ratio_for_each_layer(given: Any) -> None:
    config = MergeConfig(ratio=given)
    assert amounts(config, 3) == {0: (0, Fraction(1, 2)), 1: (0, Fraction(1, 4)), 2: (0, Fraction(1, 10))}
    assert MergeConfig.from_dict(config.to_dict()) == config


def test_an_r_for_each_merging_layer_and_none_where_it_is_0() -> None:
    config = MergeConfig(r="8,0,2", layers=(0, 2, 3))
    assert amounts(config, 4) == {0: (8, 0), 3: (2, 0)}
    assert MergeConfig.from_dict(config.to_dict()) == config
    assert config.describe() == "local k=1 r=8,0,2 min-tokens=4 positions=gather layers=0,2,3"


def test_the_newest_tokens_are_protected_beside_special_ones() -> None:
    config = MergeConfig(ratio="1/4", protect_newest=3)
    plans = [make_plan(config, 2, protect_first=1, protect_last=last) for last in (0, 2)]
    ends = [
        [(s.attributes["protect_first"], s.attributes["protect_last"]) for s in p.values()] for p in plans
    ]
    assert ends == [[(1, 3)] * 2, [(1, 5)] * 2]
    assert MergeConfig.from_dict(config.to_dict()) == config
    assert config.brief() == "local k=1 ratio=1/4 protect-newest=3"
    assert merge_flags(config.to_dict()) == [
        "--merge", "local", "--k", "1", "--ratio", "1/4", "--protect-newest", "3",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--protect-newest -1 is not a whole number of at least 0"):
        MergeConfig(protect_newest=-1)


def test_linear_schedule_in_closed_form() -> None:
    """Twice the amount at the first layer, nothing at the last, the amount on average (ToMe, appendix)."""
    found = amounts(MergeConfig(ratio="1/4", schedule="linear"), 5)
    assert found == {
        0: (0, Fraction(1, 2)),
        1: (0, Fraction(3, 8)),
        2: (0, Fraction(1, 4)),
        3: (0, Fraction(1, 8)),
    }
    found = amounts(MergeConfig(r=10, schedule="linear"), 4)
    assert found == {0: (20, 0), 1: (13, 0), 2: (6, 0)}
    assert amounts(MergeConfig(ratio="1/2", schedule="linear"), 3) == {
        0: (0, Fraction(1, 2)),
        1: (0, Fraction(1, 2)),
    }
    assert amounts(MergeConfig(ratio="1/4", schedule="linear"), 1) == {0: (0, Fraction(1, 4))}


def test_global_is_local_merging_with_every_token_in_reach() -> None:
    plan = make_plan(MergeConfig(method="global", ratio="1/4"), 1)
    same = make_plan(MergeConfig(method="local", k="global", ratio="1/4"), 1)
    assert plan[0].op_type == same[0].op_type == "LocalMerge"
    assert plan[0].attributes == same[0].attributes
    config = MergeConfig(method="global")
    assert MergeConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "global", "k": 3}, "--k has no effect with --merge global"),
        ({"r": 4, "ratio": "1/4"}, "exclude each other"),
        ({"r": "4,x"}, "--r x is not a whole number"),
        ({"r": "0,0"}, "--r is 0 for every layer"),
        ({"r": (3, -1)}, "--r -1"),
        ({"ratio": "1/4,3/4"}, "--ratio 3/4 is out of range"),
        ({"metric": "values"}, "--metric values is not known"),
        ({"schedule": "cosine"}, "--schedule cosine is not known"),
        ({"ratio": "1/4,1/8", "schedule": "linear"}, "--schedule linear takes one --ratio or --r"),
    ],
)
def test_contradictions(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        MergeConfig(**settings)


@pytest.mark.parametrize("settings", [{"ratio": "1/4,1/8"}, {"r": "4,4,4,4"}, {"r": "4,4", "layers": (1,)}])
def test_a_list_of_another_length_than_the_merging_layers(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"lists \d values, but \d layers merge"):
        make_plan(MergeConfig(**settings), 3)


def test_every_method_that_has_settings_can_be_planned() -> None:
    assert registry.names() == tuple(METHODS)
    for method in METHODS:
        assert len(make_plan(MergeConfig(method=method), 3)) == 3


def test_the_constructor_names_what_the_methods_describe() -> None:
    """Its own arguments are for readers and type checkers; what they mean, the methods say."""
    described = {option.name: option.absent for option in registry.built_in_options()}
    arguments = {entry.name: entry.default for entry in fields(MergeConfig)}
    for name in ("method", "options", *GENERAL):
        del arguments[name]
    assert arguments == described


@pytest.mark.parametrize("name", registry.built_in())
def test_a_description_agrees_with_what_it_names(name: str) -> None:
    spec, method = registry.spec(name), METHODS[name]
    schema = ops.schema(spec.op_type)
    assert (method.name, method.op_type, schema.op_type) == (name, spec.op_type, spec.op_type)
    assert spec.static == hasattr(ops.operator(spec.op_type), "static_body")
    attributes = method.attributes(MergeConfig(name), Place(0, 2, 0, 2))
    schema.check(attributes)
    assert (
        spec.causal == ("causal" in {attribute.name for attribute in schema.attributes}) or name == "global"
    )
    for option in spec.options:
        search = option.search
        values = (
            ()
            if search is None
            else search.values
            if isinstance(search, Choices)
            else (search.low, search.high)
        )
        for value in values:
            assert MergeConfig(name, **{option.name: value}).get(option.name) == option.settle(value)


def test_options_that_methods_share_are_one_object() -> None:
    known: dict[str, Any] = {}
    for name in registry.built_in():
        for option in registry.spec(name).options:
            assert known.setdefault(option.name, option) is option


def test_describing_methods_takes_the_standard_library_alone() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, numpy=None)\n"
        "from tsmerge_export.settings import registry\n"
        "assert [one.name for one in registry.specs()] == list(registry.names())\n"
        "from tsmerge_export.settings.config import MergeConfig\n"
        "print(MergeConfig('ssm', prune_share='1/3').describe())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "ssm ratio=1/4 prune-share=1/3 min-tokens=4 positions=gather\n"
