"""Files in ORT format: what they compute, without functions and library, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests import artefacts
from tests.cli.said import Capture, error_of
from tests.precision.networks import WIDTH, network
from tsmerge_export.cli import main
from tsmerge_export.errors import UnsupportedError, VerdictError
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products, quantised
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import Precision
from tsmerge_export.tools import ort_format
from tsmerge_export.tools.ort_format import convert


def run(file: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """As anybody does: no library, no function."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(None, feed)


def test_a_merged_file_loads_and_computes_the_same(tmp_path: Path) -> None:
    file = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4", min_tokens=2)).merged
    assert onnx.load(file).functions
    found = convert("model", file, tmp_path / "model.ort", threads=1)
    assert (tmp_path / "model.ort").read_bytes()[4:8] == b"ORTM" and found.ort_bytes > 1000
    assert (
        found.onnx_bytes == file.stat().st_size
        and min(found.to_dict()[key] for key in found.to_dict() if key[-3:] == "_ms") > 0
    )
    series = np.random.default_rng(0).standard_normal((3, 77)).cumsum(axis=1).astype(np.float32)
    want, got = (run(one, {"context": series}) for one in (file, tmp_path / "model.ort"))
    assert len(want) == len(got) and all(np.array_equal(a, b) for a, b in zip(want, got, strict=True))
    assert not np.array_equal(got[0], run(tmp_path / "model.ort", {"context": series[:, ::-1].copy()})[0])


def test_a_ratio_at_run_time_stays_an_input(tmp_path: Path) -> None:
    file = artefacts.built("bolt-tiny", MergeConfig(ratio="runtime:1/4", min_tokens=2)).merged
    convert("model", file, tmp_path / "model.ort", threads=1)
    series = np.random.default_rng(0).standard_normal((2, 96)).cumsum(axis=1).astype(np.float32)
    found = []
    for ratio in (0.0, 0.5):
        feed = {"context": series, "merge_ratio": np.asarray(ratio, np.float32)}
        want, got = (run(one, feed)[0] for one in (file, tmp_path / "model.ort"))
        assert np.array_equal(want, got)
        found.append(got)
    assert not np.array_equal(*found)


def test_the_command(tmp_path: Path, capsys: Capture) -> None:
    model = as_products(network())
    low = quantised(model, Precision("int8"), [one.node for one in products(model)])
    onnx.save(low, tmp_path / "low.onnx")
    figures = tmp_path / "f.json"
    assert (
        main(["ort", str(tmp_path / "low.onnx"), "-o", str(tmp_path / "out" / "a"), "--json", str(figures)])
        == 0
    )
    written = tmp_path / "out" / "a" / "low.ort"
    x = {"x": np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)}
    assert all(
        np.array_equal(a, b) for a, b in zip(run(written, x), run(tmp_path / "low.onnx", x), strict=True)
    )
    (said,) = json.loads(figures.read_text())
    assert said["name"] == "low" and said["ort_bytes"] == written.stat().st_size
    out = capsys.readouterr().out
    assert "onnx" in out and "ort" in out and "first call" in out
    for source, place, reason in (
        ("nothing", "o", "nothing: give a bundle or an .onnx file"),
        (str(written), "o", "give a bundle or an .onnx file"),
        (str(tmp_path / "low.onnx"), str(figures / "under"), "cannot be made (Not a directory)"),
    ):
        assert reason in error_of(capsys, main(["ort", source, "-o", place]), 2)
    flags = ["ort", str(tmp_path / "low.onnx"), "-o", "o", "--plugin", "nowhere.so"]
    assert "nowhere.so" in error_of(capsys, main(flags), 4)
    assert not Path("o").exists()


def test_a_form_that_computes_something_else_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(network(), tmp_path / "a.onnx")
    onnx.save(network(1), tmp_path / "b.onnx")
    own = ort_format.open_portable

    def swapped(
        file: Path, threads: int | None, plugin: Path | None, save: Path | None = None
    ) -> ort.InferenceSession:
        return own(tmp_path / "b.onnx" if save is not None else file, threads, plugin, save)

    monkeypatch.setattr(ort_format, "open_portable", swapped)
    with pytest.raises(VerdictError, match="its form in ORT format computes something else at batch 8"):
        convert("a", tmp_path / "a.onnx", tmp_path / "a.ort", threads=1)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    """An operator that nobody has."""
    model = network()
    node = model.graph.node.add(op_type="LocalMerge", domain="tsmerge", input=["x"], output=["z"])
    node.attribute.add(name="k", i=1, type=onnx.AttributeProto.INT)
    model.opset_import.add(domain="tsmerge", version=1)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(UnsupportedError, match=r"a\.onnx: ") as failed:
        convert("a", tmp_path / "a.onnx", tmp_path / "a.ort", threads=1)
    assert "\n" not in str(failed.value)
