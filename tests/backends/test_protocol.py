"""What a new back end takes: a class, and a line in the table. Flags, verdicts, card, page and `load` follow."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export import backends
from tsmerge_export.backends.base import Backend
from tsmerge_export.bundle import Bundle
from tsmerge_export.cli import main_export
from tsmerge_export.errors import UsageError


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {**backends._TABLE, "toy": ("tests.backends.toy", "Toy")}
    monkeypatch.setattr(backends, "_TABLE", table)
    monkeypatch.setattr(backends, "RUNTIMES", tuple(table))
    backends.get.cache_clear()


def test_every_back_end_of_the_table_is_one() -> None:
    made = [backends.get(name) for name in backends.RUNTIMES]
    assert all(isinstance(one, Backend) for one in made)
    assert [one.name for one in made] == list(backends.RUNTIMES)
    assert backends.of({}) is backends.get("onnxruntime") is made[0]
    assert backends.of({"target": {"runtime": "tensorrt"}}) is made[1]
    with pytest.raises(
        UsageError, match="runtime 'vpu' is not known; choose one of: onnxruntime, tensorrt, tensor"
    ):
        backends.of({"target": {"runtime": "vpu"}})


def test_the_gpu_is_spoken_of_where_it_matters() -> None:
    assert "GPU" not in backends.limits({})
    for name in ("tensorrt", "tensorrt-rtx"):
        manifest = {"target": {"runtime": name}}
        assert "no speed of an engine is claimed" in backends.limits(manifest)
        target = {"runtime": name, "dtype": "fp32", "components": {}, "on_gpu": backends.get(name).on_gpu}  # type: ignore[attr-defined]
        assert "never run on a GPU" in backends.of(manifest).describe(target)[0].text  # type: ignore[union-attr]


def test_a_back_end_is_one_file(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_verdicts(monkeypatch)
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "tiny")
    assert main_export(["--help"]) == 0
    assert "onnxruntime (default), tensorrt, tensorrt-rtx or toy" in " ".join(capsys.readouterr().out.split())
    for flags, code, says in (
        (["--inline"], 2, "--inline has no effect with --runtime toy, which has functions"),
        (["--merge", "dynamic"], 3, "--merge dynamic is none of the toy's"),
        (["--runtime", "box"], 2, "choose one of: onnxruntime, tensorrt, tensorrt-rtx, toy"),
    ):
        assert main_export(["tiny", "--runtime", "toy", *flags]) == code
        assert says in capsys.readouterr().err
    assert main_export(["tiny", "--runtime", "toy", "--ratio", "1/4", "--threads", "1", "-o", "made"]) == 0
    out, err = capsys.readouterr()
    assert "toys" in out and "toy: no box\n" in err
    bundle = Bundle.open("made")
    entry = bundle.manifest["target"]["components"]["model"]
    assert entry["parity"]["passed"]
    card, page = (html.unescape((bundle.path / name).read_text()) for name in ("README.md", "report.html"))
    for text in (card, page):
        for said in ("A toy was looked at by ONNX Runtime on the CPU.", "Not for children.", "play toy.onnx"):
            assert said in text
    assert "--runtime toy" in page
    feed = {"context": np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)}
    got, want = tsm.load("made", runtime="toy").run(feed), tsm.load("made").run(feed)
    np.testing.assert_array_equal(got["quantiles"], want["quantiles"])
    # The form is what the portable file becomes: one that was written otherwise is found.
    from tsmerge_export.verify import forms

    assert forms.faults(bundle, {}) == []
    other = backends.get("toy").lower
    monkeypatch.setattr(
        backends.get("toy"), "lower", lambda model, dtype: _renamed(other(model, dtype)), raising=False
    )
    assert forms.faults(bundle, {}) == [
        "toy.onnx: is not what model.onnx becomes for toy; export the bundle again"
    ]


def _renamed(model):  # type: ignore[no-untyped-def]
    model.graph.name = "changed"
    return model
