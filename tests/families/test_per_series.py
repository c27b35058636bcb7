"""Dynamic merging per series in models: a forecast does not hang on what is beside it; where it must, it is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import tsmerge_export as tsm
from tests.families.harness import Subject, describe
from tests.graphs import models as graphs
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.native import CPU_LIBRARY, CUDA_LIBRARY
from tsmerge_export.backends.static_functions import check_supported
from tsmerge_export.cli import main_export
from tsmerge_export.eager.apply import plan_of
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.tolerances import SCORE_NOISE

PLAIN = MergeConfig("dynamic", threshold=0.4, per_series=True)
OPTIONS = MergeConfig("dynamic", threshold=0.6, metric="key", per_series=True, prop_attn=True, min_tokens=2)
#: One row loses no token in the first layer, so that the batch stays as long as it is, while others lose some.
STRICT = MergeConfig("dynamic", threshold=0.98, per_series=True)
ABLE = [name for name in families.names() if families.get(name).hides_padding]
QUICK = [("chronos-bolt", PLAIN), ("chronos-bolt", STRICT), ("chronos-t5", OPTIONS)]
SUBJECTS = [
    pytest.param(name, merge, marks=[pytest.mark.slow] * ((name, merge) not in QUICK))
    for name in ABLE
    for merge in (PLAIN, OPTIONS, STRICT)
]  # fmt: skip


@cache
def subject(name: str) -> Subject:
    return Subject(name)


def series(length: int = 150) -> np.ndarray:
    """Rows that have none, few and many tokens alike, some after a gap."""
    rng, t = np.random.default_rng(4), np.arange(length)
    steps = np.repeat(rng.standard_normal(length // 10 + 1), 10)[:length]
    rows = [
        rng.standard_normal(length),
        np.sin(t / 5) + t / 50,
        steps,
        rng.standard_normal(length).cumsum(),
        t * 0.1,
        t * 7.0 % 13,
    ]
    out = np.stack(rows).astype(np.float32)
    out[1, :70] = out[4, :33] = np.nan
    return out


@pytest.mark.parametrize(("name", "merge"), SUBJECTS, ids=describe)
def test_parity(name: str, merge: MergeConfig) -> None:
    subject(name).assert_parity(merge)


@pytest.mark.parametrize(("name", "merge"), SUBJECTS, ids=describe)
def test_a_row_is_what_it_is_alone(name: str, merge: MergeConfig) -> None:
    """In eager and in the file, in any order and company; alone by the merging that counts over a batch of one."""
    it = subject(name)
    session = open_session(it.built(merge).merged, 1)
    names = [spec.name for spec in it.component.outputs]

    def file(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, feed), strict=True))

    together = replace(merge, per_series=False)
    padded, moved = 0, False
    for order in ([0, 1, 2, 3, 4, 5], [4, 2], [5, 3, 1, 0, 2]):
        feed = it.component.from_series(it.model, series()[order])
        eager, decided = parity.run_eager(it.component, it.model, merge, feed)
        clear = np.all([each.margin > SCORE_NOISE for each in decided], axis=0)
        merged = file(feed)
        padded += sum(int((np.diff(each.kept, axis=1) == 0).sum()) for each in decided)
        moved |= any(
            each.kept.shape == each.target.shape and bool((np.diff(each.kept, axis=1) != 1).any())
            for each in decided
        )
        for place, row in enumerate(order):
            if not clear[place]:
                continue
            alone = it.component.from_series(it.model, series()[row : row + 1])
            want = parity.run_eager(it.component, it.model, together, alone)[0]
            for value in names:
                for got in (eager[value][place], merged[value][place]):
                    one = want[value][0]
                    if "encoder_mask" in names:  # outputs that stay merged end in padding
                        shown = merged["encoder_mask"][place] != 0
                        got, one = got[shown], one[want["encoder_mask"][0] != 0]
                    np.testing.assert_allclose(got, one, rtol=0, atol=2e-5 * np.abs(one).max())
    assert padded > 3
    assert moved or merge is not STRICT
    assert clear.sum() > 1


def test_without_it_a_row_hangs_on_its_company() -> None:
    """What the tests above would show if rows shared a count."""
    it, merge = subject("chronos-bolt"), MergeConfig("dynamic", threshold=0.4)
    all_rows = it.eager(it.component.from_series(it.model, series()), merge)["quantiles"]
    alone = it.eager(it.component.from_series(it.model, series()[4:5]), merge)["quantiles"]
    assert np.abs(all_rows[4] - alone[0]).max() > 1e-3 * np.abs(alone).max()


def test_attention_does_not_see_padding() -> None:
    """With what hides it taken out of the file, a row is another one."""
    it = subject("chronos-bolt")
    model = onnx.load(it.built(PLAIN).merged)
    hidden = [
        t
        for t in model.graph.initializer
        if t.data_type == 1 and onnx.numpy_helper.to_array(t).min() == np.float32(-1e30)
    ]
    assert len(hidden) == 1
    feed = it.component.from_series(it.model, series())
    want = open_session(it.built(PLAIN).merged, 1).run(None, feed)[0]
    hidden[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.float32), hidden[0].name))
    file = it.built(PLAIN).merged.with_name("seen.onnx")
    onnx.save(model, file)
    assert np.abs(open_session(file, 1).run(None, feed)[0] - want).max() > 1e-3 * np.abs(want).max()


def test_gradients_flow_and_padding_gives_none() -> None:
    """A loss of one row, which ends in padding, has the gradient that it has alone."""
    it = subject("chronos-bolt")
    weight = it.model.encoder.block[0].layer[0].SelfAttention.q.weight

    def gradient(rows: np.ndarray) -> torch.Tensor:
        with tsm.merging(it.model, PLAIN) as run:
            out = it.component.eager(it.model, {"context": torch.from_numpy(rows)})["quantiles"]
        assert bool((run.steps[-1].size[0] == 0).any()) == (len(rows) > 1)
        return torch.autograd.grad(out[0].square().mean(), weight)[0]

    together, alone = gradient(series()[[3, 0, 5]]), gradient(series()[3:4])
    assert alone.abs().max() > 0
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_families_that_cannot_hide_padding_refuse_it() -> None:
    assert {"chronos-bolt", "chronos-t5", "chronos-2", "timesfm", "timesfm-2.5"} == set(ABLE)
    for name in ("patchtst", "informer", "patch-mamba"):
        it = subject(name)
        with pytest.raises(
            UnsupportedError, match=f"--per-series: {name} has no mask for the padding"
        ) as error:
            plan_of(it.family, it.model, PLAIN)
        assert "\n" not in str(error.value)
        with pytest.raises(UnsupportedError, match="--per-series"):
            tsm.apply(it.model, PLAIN)


def test_files_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "encoder.onnx", tmp_path / "out"
    graphs.export("plain", file, old=True, opset=17)
    assert main_export([str(file), "--merge", "dynamic", "--per-series", "-o", str(out)]) == 3
    assert "--per-series is for checkpoints" in capsys.readouterr().err
    assert not out.exists()


def test_engines_refuse_it_and_both_libraries_have_it() -> None:
    model = onnx.load(subject("chronos-bolt").built(PLAIN).merged)
    with pytest.raises(UnsupportedError, match="SeriesMerge: how many tokens stay follows from the data"):
        check_supported(model)
    merges = {node.op_type for node in model.graph.node if node.domain == "tsmerge"}
    assert "SeriesMerge" in merges
    assert merges & set(CUDA_LIBRARY.operators)
    assert merges & set(CPU_LIBRARY.operators)
    assert "SeriesMerge" in {function.name for function in model.functions}
