"""The same operator models in other runtimes: equal decisions, equal values to the tolerance.

ONNX Runtime with opset 18 is what they are compared with (it is compared with the reference elsewhere).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import parser

from tests import web
from tests.cases import KINDS, PADDINGS, SPOILS, TOLERANCES, Case
from tests.ops.harness import add_functions, feed, merge_model, session
from tests.problems import each_method

Arrays = list[np.ndarray]
#: One setting of how many: a seventh has every neighbourhood and all but one of the amounts (see ``tests/cases.py``),
#: a third of them is among the slow tests.
some_settings = pytest.mark.parametrize("share", [7, pytest.param(3, marks=pytest.mark.slow)])


def some_settings_of(*types: str) -> pytest.MarkDecorator:
    """The same by type; below float32 a twenty-first, since it is float32 that the settings are tried in."""
    fast = [(7 if dtype == "float32" else 21, dtype) for dtype in types]
    slow = [pytest.param(3, dtype, marks=pytest.mark.slow) for dtype in types]
    return pytest.mark.parametrize(("share", "dtype"), [*fast, *slow])


def _problems(of: type[Case], dtype: str, *, share: int) -> list[list[Case]]:
    """Cases by setting, one setting of ``share``: lengths 1, 2, 3, odd and even; all kinds, paddings and spoils."""
    return [
        [
            of(
                batch=1 + turn % 3,
                tokens=tokens,
                features=3 + turn,
                metric_features=turn % 4,
                kind=KINDS[(step + turn) % len(KINDS)],
                padding=PADDINGS[(step + 2 * turn) % len(PADDINGS)],
                spoil=SPOILS[(2 * step + turn) % len(SPOILS)],
                dtype=dtype,
                setting=number,
                seed=100 * step + turn,
            )
            for turn, tokens in enumerate((1, 2, 3, 8, 17, 64, 101))
        ]
        for step, number in enumerate(range(0, len(of.table), share))
    ]


def _same(case: Case, given: Arrays, expected: Arrays, *, may_flip: bool) -> bool:
    """Compare all outputs; False where the decision is another one and float noise explains that."""
    if any(not np.array_equal(given[index], expected[index]) for index in (2, 3)):
        assert may_flip, f"other decisions: {case}"
        assert min(row.margin for row in case.expected()) < case.margin, case
        return False
    np.testing.assert_array_equal(given[1], expected[1], err_msg=f"size of {case}")
    y, want = (values[0].astype(np.float32) for values in (given, expected))
    atol, rtol = TOLERANCES[case.dtype]
    atol *= float(np.abs(want[np.isfinite(want)]).max(initial=0.0))
    np.testing.assert_allclose(y, want, rtol, atol, err_msg=f"y of {case}")
    return True


@each_method
@some_settings_of("float32", "float16")
def test_onnxruntime_web(share: int, dtype: str, of: type[Case]) -> None:
    reason = web.missing()
    if reason:
        pytest.skip(reason)
    problems = _problems(of, dtype, share=share)
    models = [merge_model(cases[0].attributes, dtype, op_type=of.op_type) for cases in problems]
    results = web.run_many(
        [(model, [feed(c) for c in cases]) for model, cases in zip(models, problems, strict=True)]
    )
    same = []
    for model, cases, given in zip(models, problems, results, strict=True):
        native = session(model)
        for case, outputs in zip(cases, given, strict=True):
            want = native.run(None, feed(case))
            same.append(_same(case, list(outputs.values()), want, may_flip=of.noisy))
    assert sum(same) >= 0.9 * len(same)


@each_method
@some_settings
def test_openvino_after_inlining(share: int, of: type[Case]) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    core, same = openvino.Core(), []
    for cases in _problems(of, "float32", share=share):
        model = merge_model(cases[0].attributes, op_type=of.op_type)
        inlined = onnx.inliner.inline_local_functions(model)
        assert not inlined.functions
        compiled = core.compile_model(
            core.read_model(inlined.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        native = session(model)
        for case in cases:
            result = compiled(feed(case))
            # OpenVINO's fused division is one unit in the last place off at times, so ties between different vectors
            # are no ties there. Equal vectors must tie.
            may_flip = of.noisy or case.kind not in ("constant", "piecewise")
            given = [result[index] for index in range(4)]
            same.append(_same(case, given, native.run(None, feed(case)), may_flip=may_flip))
    assert sum(same) >= 0.9 * len(same)


@each_method
@some_settings_of("float32", "float16", "bfloat16")
def test_opset_23(share: int, dtype: str, of: type[Case]) -> None:
    for cases in _problems(of, dtype, share=share):
        attributes = cases[0].attributes
        old, new = (session(merge_model(attributes, dtype, opset, of.op_type)) for opset in (18, 23))
        for case in cases:
            _same(case, new.run(None, feed(case)), old.run(None, feed(case)), may_flip=False)


def _chain() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Three merges with different bodies, then unmerged: overloads and Unmerge in one file."""
    calls, value, size = [], "x", "size"
    for step, k in enumerate((1, 3, 0)):
        calls.append(
            f"y{step}, s{step}, kept{step}, t{step} = tsmerge.LocalMerge<k = {k}, r = 0, ratio_num = 1, ratio_den = 3, "
            f"min_tokens = 0, protect_first = 0, protect_last = 1>({value}, {value}, {size})"
        )
        value, size = f"y{step}", f"s{step}"
    for after, step in pairwise((3, 2, 1, 0)):
        calls.append(f"u{step} = tsmerge.Unmerge({f'u{after}' if after < 3 else 'y2'}, t{step})")
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18, "tsmerge" : 1]>\n'
        f"g (float[B, N, D] x, float[B, N] size) => (float[B, N, D] u0, float[B, M] s2) {{ {' '.join(calls)} }}"
    )
    add_functions(model)
    x = np.random.default_rng(9).standard_normal((2, 50, 8)).astype(np.float32)
    return model, {"x": x, "size": np.ones((2, 50), np.float32)}


def test_overloads_in_one_file_run_everywhere() -> None:
    model, inputs = _chain()
    expected = session(model).run(None, inputs)
    others = {"inlined": session(onnx.inliner.inline_local_functions(model)).run(None, inputs)}
    if web.missing() is None:
        others["web"] = list(web.run(model, [inputs])[0].values())
    for name, given in others.items():
        np.testing.assert_allclose(given[0], expected[0], rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(given[1], expected[1], err_msg=name)
