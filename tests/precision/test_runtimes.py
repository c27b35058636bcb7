"""Quantised files elsewhere: onnxruntime-web and OpenVINO compute what ONNX Runtime computes on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import inliner

from tests import artefacts, web
from tests.precision import test_tables
from tests.precision.networks import WIDTH, low_of, network
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.openvino.network import compile_file
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.quantise import twin_of
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import QUANTISED

Feed = Mapping[str, NDArray[np.generic]]


def files(kind: str) -> dict[str, tuple[onnx.ModelProto, Feed]]:
    """Products, tables, and a merged model, below float32."""
    rng = np.random.default_rng(1)
    merged = onnx_weights.read(artefacts.built("bolt-tiny", MergeConfig(ratio="1/4", k=2)).merged)
    return {
        "products": (
            low_of(kind, twin_of(network())),
            {"x": rng.standard_normal((5, WIDTH)).astype(np.float32)},
        ),
        "tables": (test_tables.low(kind)[1], {"ids": test_tables.IDS, "marks": test_tables.IDS % 20}),
        "merged": (
            low_of(kind, twin_of(merged)),
            {"context": rng.standard_normal((2, 100)).cumsum(axis=1).astype(np.float32)},
        ),
    }


def wanted(model: onnx.ModelProto, feed: Feed) -> dict[str, NDArray[np.float32]]:
    session = open_session(model, 1)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def far(found: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]) -> float:
    """The largest difference of an output, over its largest value."""
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in want.items())


@pytest.mark.skipif(web.missing() is not None, reason=str(web.missing()))
@pytest.mark.parametrize("kind", QUANTISED)
def test_onnxruntime_web(kind: str) -> None:
    made = files(kind)
    found = web.run_many([(model, [feed]) for model, feed in made.values()])
    for (name, (model, feed)), (got,) in zip(made.items(), found, strict=True):
        assert far(got, wanted(model, feed)) < 1e-5, name


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "int8-static" else pytest.param(kind, marks=pytest.mark.slow) for kind in QUANTISED],
)
def test_openvino(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    by_blocks = kind in ("int8-weights", "int4-weights")
    for name, (model, feed) in files(kind).items():
        file = tmp_path / f"{name}.onnx"
        onnx.save(inliner.inline_local_functions(model), file)
        if name == "tables" and by_blocks:  # of a table that is a product's weight too
            with pytest.raises(UnsupportedError, match="GatherBlockQuantized: 'data' must be a constant"):
                compile_file(file, threads=1)
            continue
        found = compile_file(file, threads=1)(dict(feed)).to_dict()
        got = {next(iter(output.names)): value for output, value in found.items()}
        # Of 8 bits by blocks OpenVINO computes a model's products otherwise; other runtimes agree to the last digits.
        most = 1e-2 if (kind, name) == ("int8-weights", "merged") else 1e-5
        assert far(got, wanted(model, feed)) < most, name
