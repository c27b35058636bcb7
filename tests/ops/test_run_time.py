"""Ratios that are chosen when a file runs: which fraction a number means, and the bodies that take it."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import floor
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
from onnx import parser

from tests import web
from tests.cases import Case, OptionCase, random_case
from tests.methods.pitome.cases import PitomeCase
from tests.methods.ssm.cases import SsmBranchCase, SsmCase
from tests.ops.harness import add_functions, difference, feed, merge_model, session
from tsmerge_export import ops
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import tokens_removed
from tsmerge_export.settings.run_time import nearest, read
from tsmerge_export.untrusted.onnx_risk import risk

#: What people ask for, in words that float32 does not hold.
USUAL = [
    "1/2",
    *(f"1/{n}" for n in range(3, 21)),
    "0.1",
    "0.15",
    "0.333",
    "12.5%",
    "33%",
    "1%",
    "2/7",
    "3/20",
    "0",
]
#: Numbers that are no ratio, and what they count as.
HOSTILE = [
    (np.nan, 0), (-np.nan, 0), (-0.25, 0), (-np.inf, 0), (np.inf, "1/2"), (0.50001, "1/2"), (3e38, "1/2"), (1e-45, 0),
]  # fmt: skip


def exact(text: str) -> Fraction:
    return Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text)


def ratio_model() -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>\n'
        "g (float merge_ratio) => (int64[2] share) { share = tsmerge.ExactRatio(merge_ratio) }"
    )
    add_functions(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def value(number: Any) -> dict[str, np.ndarray]:
    return {"merge_ratio": np.array(number, np.float32)}


@cache
def ratio_session() -> ort.InferenceSession:
    return session(ratio_model())


def share(number: Any) -> Fraction:
    num, den = ratio_session().run(None, value(number))[0].tolist()
    assert 1 <= den <= 1024 and np.gcd(num, den) == 1
    return Fraction(num, den)


@pytest.mark.parametrize("text", USUAL)
def test_a_number_means_the_fraction_that_it_was_written_as(text: str) -> None:
    """At every number of tokens the same go as with ``--ratio``."""
    assert share(float(exact(text))) == nearest(float(exact(text))) == read(text) == exact(text)
    found, tokens = share(float(exact(text))), np.arange(20_001, dtype=object)
    assert (tokens * found.numerator // found.denominator).tolist() == [
        floor(n * exact(text)) for n in tokens
    ]
    assert tokens_removed(19_380, ratio=found) == floor(19_380 * exact(text))


def test_every_fraction_of_small_parts_is_meant_by_its_float() -> None:
    for den in range(1, 1025):
        for num in {1, den // 3, max(0, den // 2 - 1), den // 2}:
            if 2 * num <= den:
                assert nearest(num / den) == Fraction(num, den), (num, den)
    for den in (721, 1013, 1024):
        assert share(360 / den) == Fraction(360, den)


def test_other_numbers_mean_the_nearest_fraction() -> None:
    """Python's own search for it is the reference; the greater number never means less."""
    rng = np.random.default_rng(0)
    numbers = np.sort(np.concatenate([rng.random(300) / 2, rng.random(50) / 500]).astype(np.float32))
    steps = [Fraction(round(float(number) * 2**21), 2**21) for number in numbers]
    found = [share(number) for number in numbers]
    assert found == [step.limit_denominator(1024) for step in steps] == [nearest(float(n)) for n in numbers]
    assert found == sorted(found)


@pytest.mark.parametrize(("number", "meant"), HOSTILE, ids=str)
def test_numbers_that_are_no_ratio_are_cut(number: float, meant: Any) -> None:
    assert share(number) == nearest(number) == Fraction(meant)


@pytest.mark.parametrize(
    "given",
    [
        -0.1,
        0.51,
        "0.6",
        "1/0",
        "nan",
        np.nan,
        np.inf,
        True,
        None,
        [0.1, 0.2],
        "1e999999999",
        "9" * 5000,
        "1/9/9",
    ],
)
def test_what_no_graph_should_be_given_is_refused_in_one_line(given: Any) -> None:
    with pytest.raises(UsageError, match="is not a ratio; give a number from 0") as caught:
        read(given)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_the_graph_is_known_to_do_no_harm() -> None:
    """Nothing is divided by what may be 0, also where a file names other functions."""
    assert risk(ratio_model()) is None
    attributes = {
        "k": 3,
        "r": 0,
        "ratio_num": 1,
        "ratio_den": 4,
        "min_tokens": 0,
        "protect_first": 0,
        "protect_last": 0,
    }
    assert risk(merge_model({**attributes, "run_time": 1})) is None


def test_all_runtimes_mean_the_same() -> None:
    numbers = (
        [float(exact(text)) for text in USUAL] + [number for number, _ in HOSTILE] + [0.123456, 0.4999999]
    )
    want = [ratio_session().run(None, value(number))[0].tolist() for number in numbers]
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    core = openvino.Core()
    inlined = onnx.inliner.inline_local_functions(ratio_model())
    compiled = core.compile_model(core.read_model(inlined.SerializeToString()), "CPU")
    assert [compiled(value(number))[0].tolist() for number in numbers] == want
    reason = web.missing()
    if reason:
        pytest.skip(reason)
    found = web.run(ratio_model(), [value(number) for number in numbers])
    assert [one["share"].tolist() for one in found] == want


@pytest.mark.parametrize("of", [Case, OptionCase, PitomeCase, SsmCase, SsmBranchCase])
def test_bodies_merge_what_the_reference_does_at_the_chosen_ratio(of: type[Case]) -> None:
    """The node itself was made for another ratio, which must not count."""
    rng, done = np.random.default_rng(1), 0
    while done < 6:
        case = random_case(rng, of=of)
        num, den = int(case.attributes["ratio_num"]), int(case.attributes["ratio_den"])
        if not num:
            continue
        own = {**case.attributes, "ratio_num": 1, "ratio_den": 7, "run_time": 1}
        made = session(merge_model(own, case.dtype, op_type=of.op_type))
        y, size, kept, target, chosen = made.run(None, {**feed(case), **value(num / den)})
        assert chosen.tolist() == [num, den]
        assert difference(case, (y.astype(np.float32), size, kept, target)) in (None, "flip"), case
        x, sizes = feed(case)["x"], feed(case)["size"]
        y, size, kept, target, _ = made.run(None, {**feed(case), **value(0)})
        assert (y.tobytes(), size.tobytes()) == (x.tobytes(), sizes.tobytes())
        assert kept.tolist() == target.tolist() == [list(range(case.tokens))] * case.batch
        done += 1


def test_bodies_of_run_time_stand_beside_the_others() -> None:
    attributes = {
        "k": 1,
        "r": 0,
        "ratio_num": 1,
        "ratio_den": 4,
        "min_tokens": 0,
        "protect_first": 1,
        "protect_last": 0,
    }
    assert ops.variant_key("LocalMerge", {**attributes, "causal": 1, "run_time": 1}) == "k1_causal_run_time"
    with pytest.raises(UsageError, match="run_time needs a ratio"):
        ops.variant_key("LocalMerge", {**attributes, "ratio_num": 0, "r": 3, "run_time": 1})
    words = ops.schema("LocalMerge").words({**attributes, "run_time": 1})
    assert "ratio 1/4" in words and "chosen at run time" in words
