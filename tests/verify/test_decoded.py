"""Chronos-T5 decoded by its files: quantiles are those of the forecaster's own paths, however the batch is split."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests import artefacts
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.bundle import Bundle
from tsmerge_export.forecast import pipeline
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.decoded import decoded_by
from tsmerge_export.verify.window_errors import run_named


def test_quantiles_are_those_of_the_forecasters_paths() -> None:
    family, model, component = (
        artefacts.family("t5-tiny"),
        artefacts.model("t5-tiny"),
        artefacts.component("t5-tiny"),
    )
    bundle = Bundle.open(artefacts.bundle("t5-tiny", MergeConfig(ratio="1/4")))
    files = {name: bundle.component(name).file for name in ("encoder", "cross", "decoder")}
    names = [spec.name for spec in component.outputs]
    run = partial(run_named, open_session(files["encoder"], 1), names)
    series = np.cumsum(np.random.default_rng(0).standard_normal((5, 70)), 1).astype(np.float32)
    series[2, :30] = np.nan
    paths = pipeline(bundle, threads=1).predict(series, seed=7)
    want = np.quantile(paths.astype(np.float64), family.quantile_levels(model), axis=1).transpose(1, 0, 2)
    parts = [
        Built(part, files[part.name], files[part.name], None, RewriteReport())
        for part in family.components(model)[1:]
    ]
    whole = decoded_by(family, model, parts, Checks(threads=1))
    assert whole is not None
    found = whole(run, series, 7)
    assert found.shape == (5, 9, 16)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    # Parts of one series each, for lack of memory: every series keeps its own random numbers.
    single = decoded_by(family, model, parts, Checks(threads=1), memory=1)
    assert single is not None
    np.testing.assert_allclose(single(run, series, 7), found, rtol=1e-5, atol=1e-5)
    assert not np.allclose(whole(run, series, 8), found)


def test_a_family_that_does_not_generate_has_no_decoder() -> None:
    assert decoded_by(artefacts.family("bolt-tiny"), artefacts.model("bolt-tiny"), []) is None
