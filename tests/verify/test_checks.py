"""Settings of the verdicts are read once, and reach whatever a verdict opens and runs."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

from tsmerge_export.errors import UsageError
from tsmerge_export.verify import checks as module
from tsmerge_export.verify import corpus, tolerances
from tsmerge_export.verify.checks import Checks


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"atol": -1.0}, "--atol -1.0"),
        ({"rtol": tolerances.LIMIT}, "--rtol 0.1"),
        ({"atol": float("nan")}, "--atol nan"),
        ({"threads": 0}, "threads 0"),
        ({"threads": 1.5}, "threads 1.5"),
        ({"threads": True}, "threads True"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_numbers_out_of_range(given: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Checks(**given)


def test_a_tolerance_given_is_the_one_that_counts() -> None:
    usual = Checks()
    assert usual.tolerance("chronos-bolt") == tolerances.END_TO_END["chronos-bolt", "float32"]
    assert usual.noisy() and not usual.noisy("float16")
    tight = Checks(atol=0.0, rtol=1e-6)
    assert tight.tolerance("chronos-bolt") == tolerances.Tolerance(0.0, 1e-6)
    assert not tight.noisy() and not Checks(rtol=1e-6).noisy()


def test_series_of_the_verdict() -> None:
    whole = Checks(seed=3)
    assert whole.corpus(64, (3, 65)) == list(corpus.cases(64, seed=3, avoid=(3, 65)))
    assert whole.whole
    chosen = Checks(cases=[corpus.Case(corpus.ENTRIES[0], 1, 8, 0)])
    assert chosen.corpus(64) == list(chosen.cases or ()) and not chosen.whole
    assert hash(chosen) == hash(Checks(cases=chosen.cases))


def test_quick_is_little_but_of_several_kinds_and_lengths() -> None:
    quick = Checks(quick=True)
    found = quick.corpus(512)
    assert len(found) <= len(Checks().corpus(512)) / 10
    assert len({case.entry for case in found}) >= 4 and len({case.length for case in found}) >= 4
    assert (quick.runs(20), Checks(timed=False).runs(20), Checks().runs(20)) == (1, 1, 20)
    assert Checks(timed=False).corpus(512) == Checks().corpus(512)
    assert not quick.whole


def test_sessions_get_the_threads_and_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.onnx"
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Neg (x) }'
    )
    onnx.save(model, file)
    checks = Checks(threads=3)
    opened = checks.open(file)
    assert opened.get_session_options().intra_op_num_threads == 3
    seen = []

    class Seen:
        def __init__(
            self, path: Path, threads: int | None = None, options: object = None, **place: object
        ) -> None:
            seen.append((path, threads, options is not None, place))

    monkeypatch.setattr(module, "GraphSession", Seen)
    checks.forecaster(file)
    checks.forecaster(file, quiet=True)
    where = {"providers": ["CPUExecutionProvider"], "plugin": None}
    assert seen == [(file, 3, False, where), (file, 3, True, where)]
