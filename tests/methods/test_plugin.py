"""A method of another package goes through everything: eager, export, verdicts, flags, search, inspect, the page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import tsmerge_export as tsm
from tests.installed import forget_modules, install
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tsmerge_export import ops
from tsmerge_export.cli import main, main_export
from tsmerge_export.errors import MissingDependencyError, UsageError, VerdictError
from tsmerge_export.merge.plan import make_plan
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune import space
from tsmerge_export.tools.tune.search import identity_of
from tsmerge_export.verify import settings

Capture = pytest.CaptureFixture[str]

EXAMPLE = Path(__file__).parents[1] / "example_method"


def _forget() -> None:
    registry.forget()
    forget_modules("example_method")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, the example among them; work is done in it."""
    install(tmp_path, registry.GROUP, "example_method", "quiet = example_method:METHOD")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def test_the_example_is_three_files() -> None:
    files = [path for path in EXAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert len(files) <= 3


def naive(x: np.ndarray, size: np.ndarray, r: int, first: int, later: float) -> tuple[list[int], np.ndarray]:
    """One row ``x [N, D]`` merged in loops: what is kept, and the values."""
    pairs = [(first + 2 * i, first + 2 * i + 1) for i in range((len(x) - first) // 2)]
    loud = [np.abs(x[a]).sum() + later * np.abs(x[b]).sum() for a, b in pairs]

    def place(i: int) -> tuple[bool, bool, float, int]:
        """Padding goes first, whatever it holds; what would go into padding goes last."""
        a, b = pairs[i]
        if size[a] == 0:
            return (False, False, 0.0, i)
        return (True, True, 0.0, i) if size[b] == 0 else (True, False, float(loud[i]), i)

    order = sorted(range(len(pairs)), key=place)
    y = x.astype(np.float64).copy()
    gone = []
    for i in order[:r]:
        a, b = pairs[i]
        total = size[a] + size[b]
        if size[a] > 0:
            y[b] = (x[a] * size[a] + (x[b] * size[b] if size[b] > 0 else 0)) / total
        gone.append(a)
    kept = [t for t in range(len(x)) if t not in gone]
    return kept, y[kept]


@pytest.mark.parametrize("seed", range(8))
def test_reference_and_operator_equal_a_naive_loop(seed: int, site: Path) -> None:
    rng = np.random.default_rng(seed)
    tokens, first, later = (
        int(rng.integers(2, 20)),
        int(rng.integers(0, 3)),
        float(rng.choice([0.5, 1.0, 2.5])),
    )
    merge = MergeConfig("quiet", r=int(rng.integers(1, 9)), min_tokens=0, later=later)
    step = make_plan(merge, 1, protect_first=first)[0]
    x = rng.normal(size=(3, tokens, 4)).astype(np.float32)
    size = rng.integers(0, 4, (3, tokens)).astype(np.float32)
    merged = step(torch.from_numpy(x), torch.from_numpy(size))
    r = step.method.removed(step.attributes, tokens)
    node = onnx.helper.make_node(
        "QuietMerge", ["x", "x", "size"], ["y", "s", "kept", "target"], domain="tsmerge"
    )
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in step.attributes.items())
    node.overload = ops.variant_key("QuietMerge", step.attributes)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [value("x", 1, ["B", "N", 4]), value("size", 1, ["B", "N"])],
        [value("y", 1, None), value("s", 1, None), value("kept", 7, None), value("target", 7, None)],
    )
    imports = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("tsmerge", 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    model.functions.append(ops.function("QuietMerge", step.attributes))
    y, s, kept, target = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x, "size": size})
    for row in range(3):
        want, values = naive(x[row], size[row], r, first, later)
        assert kept[row].tolist() == merged.kept[row].tolist() == want
        np.testing.assert_allclose(merged.y[row], values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y[row], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(s, merged.size)
    np.testing.assert_array_equal(target, merged.target)


def test_it_is_exported_proved_read_and_inspected(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    tiny_folder(site / "tiny")
    quick_verdicts(monkeypatch)
    np.savetxt("series.csv", np.sin(np.arange(400) / 4), header="a", comments="")
    flags = ["--merge", "quiet", "--r", "3", "--later", "0.5,2", "--data", "series.csv", "--threads", "1"]
    assert main_export(["tiny", *flags, "-o", "out"]) == 0
    assert "chronos-bolt: quiet r=3 later=0.5,2.0 min-tokens=4" in capsys.readouterr().out

    bundle = tsm.Bundle.open("out")
    merges = bundle.manifest["components"][0]["merges"]
    assert [merge["op_type"] for merge in merges] == ["QuietMerge"] * 2
    merge = MergeConfig.from_dict(bundle.manifest["merge"])
    assert merge == MergeConfig("quiet", r=3, later=(0.5, 2.0))
    page = (site / "out" / "report.html").read_text()
    assert "--merge quiet --later 0.5,2.0 --r 3" in page

    # The file is the eager model with the reference in it.
    series = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    loaded = tsm.load_model("tiny")
    with torch.no_grad(), tsm.merging(loaded.model, merge) as run:
        want = loaded.model(torch.from_numpy(series)).quantile_preds
        assert [step.removed for step in run.steps] == [3, 3]
    got = tsm.load("out").run({"context": series})["quantiles"]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-5)

    assert main(["inspect", "out"]) == 0, capsys.readouterr().err
    assert "r 3, min-tokens 4, protect-last 1, later 0.5" in " ".join(capsys.readouterr().out.split())

    # A file that says something else than the settings is caught by its nodes alone.
    model = onnx.load(bundle.component("model").file)
    plan = make_plan(merge, 2, protect_last=1)
    assert settings.faults(model, plan) == []
    nodes = settings.merge_nodes(model)
    next(a for a in nodes[1].attribute if a.name == "later").f = 1.0
    (fault,) = settings.faults(model, plan)
    assert "later is 1.0, the settings say 2.0" in fault

    # Forecasts need the bundle alone.
    code = (
        "import numpy as np, tsmerge_export as tsm\n"
        "out = tsm.load('out').run({'context': np.ones((1, 64), np.float32)})['quantiles']\n"
        "assert np.isfinite(out).all()\n"
        "tsm.pipeline('out').predict(np.arange(40.0), prediction_length=4)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_an_eager_model_that_merges_otherwise_fails_the_verdict(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity compares decisions of this method too: a reference that weighs differently is found out."""
    tiny_folder(site / "tiny")
    quick_verdicts(monkeypatch)
    from example_method import reference

    right = reference.ranks
    monkeypatch.setattr(
        reference,
        "ranks",
        lambda metric, size, attributes: right(metric, size, {**attributes, "later": 50.0}),
    )
    with pytest.raises(VerdictError):
        tsm.export("tiny", MergeConfig("quiet", ratio="1/4"), output="out", threads=1)


def test_settings_of_its_own(site: Path) -> None:
    merge = MergeConfig("quiet", later="0.5")
    assert merge.options == {"later": 0.5} and merge.at("later", 1) == 0.5
    assert merge == MergeConfig("quiet", options={"later": 0.5}) != MergeConfig("quiet")
    assert len({merge, MergeConfig("quiet", later=0.5), MergeConfig("quiet")}) == 2
    assert MergeConfig.from_dict(merge.to_dict()) == merge
    assert repr(merge) == "MergeConfig('quiet', ratio='1/4', later=0.5)"
    assert MergeConfig("quiet").options == {"later": 1.0}
    with pytest.raises(UsageError, match="--later 200 is out of range"):
        MergeConfig("quiet", later=200)
    with pytest.raises(UsageError, match="--later lists 3 values, but 2 layers merge"):
        make_plan(MergeConfig("quiet", later="1,2,3"), 2)
    with pytest.raises(UsageError, match="--later has no effect with --merge local"):
        MergeConfig("local", later=1)
    with pytest.raises(
        UsageError, match="--k has no effect with --merge quiet, whose own settings are: --later"
    ):
        MergeConfig("quiet", k=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'latter'"):
        MergeConfig("quiet", latter=1)


def test_without_the_package_there_is_no_such_method_or_flag(tmp_path: Path, capsys: Capture) -> None:
    assert "quiet" not in registry.names()
    assert main_export(["tiny", "--merge", "quiet"]) == 2
    assert "--merge quiet is not a known method; choose one of: none, local" in capsys.readouterr().err
    assert main_export(["tiny", "--later", "1"]) == 2
    assert "unrecognized arguments: --later" in capsys.readouterr().err


def test_help_and_flags(site: Path, capsys: Capture) -> None:
    assert main_export(["--merge", "quiet", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--merge quiet: all but the r pairs of neighbours" in text
    assert "--later W how much the later token of a pair counts" in text
    assert main_export(["tiny", "--merge=quiet", "--later", "no"]) == 2
    assert "--later no is not a number" in capsys.readouterr().err


class First:
    """Proposes the first of everything, and the method that is asked for."""

    def __init__(self, method: str) -> None:
        self.method = method

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        assert name != "method" or self.method in choices
        return self.method if name == "method" else choices[0]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        return low


def test_tune_searches_it(site: Path) -> None:
    assert (
        space.suggest(First("quiet"), 2).describe().startswith("quiet ratio=1/20 schedule=constant later=0.5")
    )
    guesses = [guess for guess in space.first_guesses() if guess["method"] == "quiet"]
    assert [(guess["ratio"], guess["quiet: later"]) for guess in guesses] == [("1/4", 1.0)]
    assert identity_of(["m"], b"", "wql", 1, None, None)["methods"][-1] == "quiet"


BROKEN = {
    "raises": ("x = 1 / 0\n", "broken_raises:METHOD", 2, "ZeroDivisionError"),
    "absent": ("import no_such_module\n", "broken_absent:METHOD", 4, "no_such_module is not installed"),
    "nothing": ("", "broken_nothing:METHOD", 2, "AttributeError"),
    "other": ("METHOD = 3\n", "broken_other:METHOD", 2, "is no tsmerge_export.settings.method.MethodSpec"),
    "named": ("from example_method import METHOD\n", "broken_named:METHOD", 2, "calls itself 'quiet'"),
    "taken": (
        "from dataclasses import replace\nfrom example_method import METHOD\n"
        "METHOD = replace(METHOD, name='taken', op_type='LocalMerge')\n",
        "broken_taken:METHOD",
        2,
        "LocalMerge is an operator of this package",
    ),
    "general": (
        "from dataclasses import replace\nfrom example_method import LATER, METHOD\n"
        "METHOD = replace(METHOD, name='general', options=(replace(LATER, name='layers'),))\n",
        "broken_general:METHOD",
        2,
        "--layers is a setting of all methods",
    ),
    "borrowed": (
        "from dataclasses import replace\nfrom example_method import LATER, METHOD\n"
        "METHOD = replace(METHOD, name='borrowed', options=(replace(LATER, name='margin'),))\n",
        "broken_borrowed:METHOD",
        2,
        "--margin is an option of this package's methods",
    ),
    "clash": (
        "from dataclasses import replace\nfrom example_method import LATER, METHOD\n"
        "METHOD = replace(METHOD, name='clash', options=(replace(LATER, name='output'),))\n",
        "broken_clash:METHOD",
        2,
        "its option --output is another flag",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plug_in_is_one_line(kind: str, site: Path, capsys: Capture) -> None:
    code, entry, exit_code, words = BROKEN[kind]
    (site / f"broken_{kind}.py").write_text(code)
    install(site, registry.GROUP, f"broken_{kind}", f"{kind} = {entry}")
    _forget()
    assert main_export(["tiny", "--merge", kind, "-o", "out"]) == exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert kind in error
    assert words in error
    # It is in nobody else's way.
    assert MergeConfig("quiet", later=2).get("later") == 2
    assert "LocalMerge" in ops.merge_op_types() and "QuietMerge" in ops.merge_op_types()
    assert "quiet" in space.methods()


def test_a_broken_part_of_a_plug_in_is_one_line(site: Path) -> None:
    (site / "broken_part.py").write_text(
        "from dataclasses import replace\nfrom example_method import METHOD\n"
        "METHOD = replace(METHOD, name='part', op_type='PartMerge', operator='broken_part',\n"
        "                 reference='broken_none:X')\n"
    )
    install(site, registry.GROUP, "broken_part", "part = broken_part:METHOD")
    _forget()
    with pytest.raises(UsageError, match="broken_part has no SCHEMA of PartMerge that merges"):
        ops.schema("PartMerge")
    with pytest.raises(MissingDependencyError, match="method plug-in 'part': broken_none is not installed"):
        make_plan(MergeConfig("part"), 1)


def test_two_packages_with_one_name_and_the_name_of_a_built_in_method(site: Path) -> None:
    install(site, registry.GROUP, "second", "quiet = example_method:LATER\nlocal = example_method:METHOD")
    _forget()
    with pytest.raises(UsageError, match="claims the same name"):
        MergeConfig("quiet")
    assert registry.spec("local").op_type == "LocalMerge"
    assert registry.names().count("local") == 1


def test_two_packages_with_one_operator(site: Path) -> None:
    (site / "broken_second.py").write_text(
        "from dataclasses import replace\nfrom example_method import METHOD\n"
        "METHOD = replace(METHOD, name='second', operator='broken_second')\n"
    )
    install(site, registry.GROUP, "broken_second", "second = broken_second:METHOD")
    _forget()
    with pytest.raises(UsageError, match="QuietMerge is an operator of --merge quiet and --merge second"):
        ops.schema("QuietMerge")
    assert ops.schema("LocalMerge").merges
