"""What a new back end takes: a class, and an entry point. Flags, verdicts, card, page and `load` follow."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.installed import forget_modules, install, install_example
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export import backends
from tsmerge_export.backends.base import Backend
from tsmerge_export.bundle import Bundle
from tsmerge_export.cli import main_export
from tsmerge_export.errors import UsageError

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, the example among them; work is done in it."""
    install_example(tmp_path, backends.GROUP, "example_backend")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    backends.forget()
    forget_modules("example_backend")


def test_every_back_end_of_the_table_is_one() -> None:
    made = [backends.get(name) for name in backends.built_in()]
    assert all(isinstance(one, Backend) for one in made)
    assert [one.name for one in made] == list(backends.built_in())
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


def test_a_back_end_is_one_file(site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    quick_verdicts(monkeypatch)
    tiny_folder(site / "tiny")
    assert main_export(["--help"]) == 0
    assert "or a back end of another package" in " ".join(capsys.readouterr().out.split())
    for flags, code, says in (
        (["--inline"], 2, "--inline has no effect with --runtime toy, which has functions"),
        (["--merge", "dynamic"], 3, "--merge dynamic is none of the toy's"),
        (["--runtime", "box"], 2, "choose one of: onnxruntime, tensorrt, tensorrt-rtx, openvino, toy"),
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


BROKEN = {
    "raises": ("x = 1 / 0\n", "broken_raises:Toy", 2, "ZeroDivisionError"),
    "absent": ("import no_such_module\n", "broken_absent:Toy", 4, "no_such_module is not installed"),
    "nothing": ("", "broken_nothing:Toy", 2, "AttributeError"),
    "other": (
        "Toy = dict\n",
        "broken_other:Toy",
        2,
        "is no tsmerge_export.backends.base.Backend",
    ),
    "half": (
        "from tsmerge_export.backends.base import Backend\nclass Toy(Backend):\n    name = 'half'\n",
        "broken_half:Toy",
        2,
        "abstract",
    ),
    "named": ("from example_backend import Toy\n", "broken_named:Toy", 2, "calls itself 'toy'"),
    "taken": (
        "from example_backend import Toy as Other\nfrom tsmerge_export.backends.tensorrt.names import NODE\n"
        "class Toy(Other):\n    name, node = 'taken', NODE\n",
        "broken_taken:Toy",
        2,
        "is a node of this package",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plug_in_is_one_line(kind: str, site: Path, capsys: Capture) -> None:
    code, entry, exit_code, words = BROKEN[kind]
    (site / f"broken_{kind}.py").write_text(code)
    install(site, backends.GROUP, f"broken_{kind}", f"{kind} = {entry}")
    _forget()
    tiny_folder(site / "tiny")
    assert main_export(["tiny", "--runtime", kind, "-o", "out"]) == exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"back-end plug-in {kind!r} of broken_{kind} 1.0" in error
    assert words in error
    # It is in nobody else's way.
    assert kind in backends.names()
    assert [one.name for one in backends.usable()] == [*backends.built_in(), "toy"]


def test_two_packages_with_one_name_and_the_name_of_a_built_in_back_end(site: Path) -> None:
    install(site, backends.GROUP, "second", "toy = example_backend:Part\ntensorrt = example_backend:Toy")
    _forget()
    with pytest.raises(
        UsageError, match=r"of example_backend 1.0: second 1.0 claims the same name; uninstall"
    ):
        backends.get("toy")
    assert type(backends.get("tensorrt")).__name__ == "TensorRT"
    assert backends.names().count("tensorrt") == 1


def test_without_the_package_there_is_no_such_back_end(tmp_path: Path, capsys: Capture) -> None:
    assert "toy" not in backends.names()
    assert main_export([str(tiny_folder(tmp_path / "tiny")), "--runtime", "toy"]) == 2
    assert "runtime 'toy' is not known; choose one of: onnxruntime, tensorrt" in capsys.readouterr().err


def _renamed(model):  # type: ignore[no-untyped-def]
    model.graph.name = "changed"
    return model
