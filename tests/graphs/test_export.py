"""From files of many makers to verified bundles."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import tsmerge_export as tsm
from tests.graphs.bundles import bundle_of
from tests.graphs.models import MODELS, build, export, save_program
from tests.verify.bundles import save_again
from tsmerge_export import api
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.cli import main, main_export
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.graphs import verdicts
from tsmerge_export.graphs.model import GraphOptions, load_graph_model
from tsmerge_export.rewrite.align import Aligner
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import lengths
from tsmerge_export.verify.checks import Checks

# name, how it is exported, merge points, barriers: the encoder's convolutions and what reads single tokens at the end
CASES: list[tuple[str, dict[str, Any], int, list[str]]] = [
    ("bert", {"opset": 23}, 3, []),
    ("bert-eager", {"opset": 13, "old": True}, 3, []),
    ("vit", {"opset": 18}, 3, ["Gather"]),
    ("vit", {"opset": 14, "old": True, "fixed": True}, 3, ["Gather"]),
    ("llama", {"opset": 17, "old": True}, 3, []),
    ("wav2vec2", {"opset": 18}, 3, []),
    ("plain", {"opset": 17, "old": True, "fixed": True, "length": 16}, 5, ["Slice"]),
    ("informer", {"opset": 16, "old": True}, 5, ["Conv", "Conv", "Slice"]),
    ("nonstationary", {"opset": 15, "old": True}, 5, ["Slice"]),
]


@pytest.mark.parametrize(
    ("name", "how", "merges", "barriers"),
    CASES,
    ids=[f"{c[0]}-{'-'.join(map(str, c[1].values()))}" for c in CASES],
)
def test_file_to_bundle(
    name: str, how: dict[str, Any], merges: int, barriers: list[str], tmp_path: Path
) -> None:
    file = tmp_path / f"{name}.onnx"
    export(name, file, **how)
    if name == "bert":
        assert any(node.op_type == "Attention" for node in onnx.load(file).graph.node)
    bundle = bundle_of(file)
    found = bundle.manifest
    part, parity = found["components"][0], found["verdicts"]["parity"]
    assert found["family"] == "onnx" and found["opset"] == max(18, how["opset"])
    assert len(part["merges"]) == merges
    assert sorted(barrier["op_type"] for barrier in part["barriers"]) == barriers
    assert parity["passed"] and parity["cases"] >= 5 and parity["max_rel"] < 2e-5 and not parity["warnings"]
    assert parity["rows"] > 2 * parity["decision_flips"]
    cost = found["verdicts"]["cost"]
    assert all(moved > 1e-3 for moved in cost["outputs"].values()) and "forecast error" in cost["notes"][0]
    mask = "attention_mask" if name in ("bert", "bert-eager", "llama") else None
    assert found["graph"]["token_mask"] == mask
    _nothing_removed_is_the_original(file)


def _nothing_removed_is_the_original(file: Path) -> None:
    """With nothing to remove, bit for bit what the unmerged file gives."""
    model = load_graph_model(file, GraphOptions())
    folder = file.with_suffix(".none")
    folder.mkdir()
    merge = MergeConfig(min_tokens=100_000)
    built = merge_and_lower(
        model.component, model.measured, merge, inline=False, folder=folder, scratch=folder, stay={}
    )  # fmt: skip
    assert len(built.report.merges) >= 3
    for index in range(len(model.sizes)):
        feeds = model.example(index)
        got, want = (open_session(path, 1).run(None, feeds) for path in (built.merged, built.unmerged))
        assert [value.tobytes() for value in got] == [value.tobytes() for value in want]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("llama") / "llama.onnx"
    export("llama", file, opset=17, old=True)
    return file


@pytest.mark.parametrize(
    "merge",
    [
        MergeConfig(k=None, ratio="1/3", prop_attn=True),
        MergeConfig(method="dynamic", threshold=0.2, layers=(0, 2)),
        MergeConfig(method="pitome", ratio="1/4", metric="key"),
    ],
    ids=lambda merge: merge.describe(),
)
def test_every_method(merge: MergeConfig, llama: Path) -> None:
    parity = bundle_of(llama, merge).verdicts["parity"]
    assert parity["passed"] and parity["rows"] > 3 * parity["decision_flips"]


def test_artefact_is_the_module_where_nothing_merges(llama: Path) -> None:
    """Independent of every ONNX file: against transformers itself."""
    bundle = bundle_of(llama, MergeConfig(min_tokens=100_000))
    ids = np.random.default_rng(0).integers(0, 90, (3, 17))
    mask = np.ones_like(ids)
    mask[1, :5] = 0
    with torch.no_grad():
        want = build("llama")(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    got = tsm.load(bundle, threads=1).run({"input_ids": ids, "attention_mask": mask})["y"]
    np.testing.assert_allclose(got[mask == 1], want[mask == 1], rtol=1e-4, atol=5e-5)


def test_wrong_alignment_fails_parity(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that are renumbered where they should be gathered: one line of the rewriter, wrong."""
    init = Aligner.__init__

    def compact(self: Aligner, emit: Any, **options: Any) -> None:
        init(self, emit, **{**options, "compact": True})

    monkeypatch.setattr(Aligner, "__init__", compact)
    with pytest.raises(VerdictError, match="parity failed"):
        bundle_of(llama)


def test_other_amount_fails_parity(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = verdicts.make_plan
    monkeypatch.setattr(verdicts, "make_plan", lambda merge, *a, **k: plan(MergeConfig(ratio="1/3"), *a, **k))
    with pytest.raises(VerdictError, match="ratio_den is 4, the settings say 3"):
        bundle_of(llama)
    monkeypatch.setattr(verdicts.settings, "faults", lambda *_: [])
    with pytest.raises(VerdictError, match="merge decision differs"):
        bundle_of(llama)


def test_an_edited_attribute_fails_parity(llama: Path) -> None:
    """Whatever attribute of whichever merge, in a bundle of a file."""
    merge = MergeConfig(ratio="1/4", min_tokens=2)
    bundle = bundle_of(llama, merge)
    model = load_graph_model(llama, GraphOptions())
    plan, proto = verdicts.planned(model, merge)[1], onnx.load(bundle.path / "model.onnx")
    assert verdicts.settings.faults(proto, plan) == []
    nodes = verdicts.settings.merge_nodes(proto)
    assert len(nodes) == 3
    for node in nodes:
        for item in node.attribute:
            item.i += 1
            assert f" {item.name} is {item.i}, the settings say {item.i - 1}" in str(
                verdicts.settings.faults(proto, plan)
            )
            item.i -= 1
    next(item for item in nodes[2].attribute if item.name == "protect_last").i = 1
    onnx.save(proto, bundle.path / "model.onnx")
    save_again(bundle.path)
    found = api.validate(bundle.path, llama, threads=1)["parity"]
    assert not found["passed"]
    assert found["failures"][0].startswith("merge at layer 2") and "protect_last is 1" in found["failures"][0]
    # The lengths that were added tell all settings apart that any length does.
    counts = [case["tokens"] for case in found["details"]]
    left = lengths.alike(plan, counts)
    assert not [one for one in left if one.attribute.startswith("ratio")]


def test_a_wrong_value_behind_right_decisions_fails_parity(tmp_path: Path) -> None:
    """The last weight of the merged file is 1 % off: nothing is decided behind it."""
    file = tmp_path / "plain.onnx"
    export("plain", file, old=True, opset=17)
    model, merge = load_graph_model(file, GraphOptions()), MergeConfig(ratio="1/4", min_tokens=2)
    built = merge_and_lower(
        model.component, model.measured, merge, inline=False, folder=tmp_path, scratch=tmp_path, stay={}
    )
    checks: Any = {"checks": Checks(threads=1), "progress": lambda *_: None}
    assert verdicts.parity(model, merge, built, **checks).passed
    proto = onnx.load(built.merged)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer if len(tensor.dims) == 2}
    used = [name for node in proto.graph.node for name in node.input if name in weights]
    values = onnx.numpy_helper.to_array(weights[used[-1]]) * np.float32(1.01)
    weights[used[-1]].CopyFrom(onnx.numpy_helper.from_array(values, used[-1]))
    onnx.save(proto, built.merged)
    found = verdicts.parity(model, merge, built, **checks)
    assert not found.passed
    assert found.kept_mismatches == 0
    assert any("error" in failure for failure in found.failures)


def test_a_reference_that_is_not_the_original_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plain.onnx"
    export("plain", file, old=True, opset=17)
    run = verdicts.Reference.run

    def off(self: verdicts.Reference, feeds: Any) -> Any:
        outputs, decided = run(self, feeds)
        return {name: np.float32(1.01) * value for name, value in outputs.items()}, decided

    monkeypatch.setattr(verdicts.Reference, "run", off)
    with pytest.raises(VerdictError, match="nothing can be proved with such a reference"):
        bundle_of(file)


def test_missing_barrier_is_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vit.onnx"
    export("vit", file, old=True)
    wrong = verdicts.reference_of

    def without(*args: Any) -> Any:
        made = wrong(*args)
        made._barriers.clear()
        return made

    monkeypatch.setattr(verdicts, "reference_of", without)
    with pytest.raises(UnsupportedError, match="picks from the merged axis"):
        bundle_of(file)


def test_a_ratio_that_is_chosen_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proved at its default and at others; a reference that does not follow is noticed."""
    file = tmp_path / "bert.onnx"
    export("bert", file)
    merge = MergeConfig(ratio="runtime:1/4", min_tokens=2)
    bundle = bundle_of(file, merge)
    assert bundle.merge == merge and bundle.verdicts["parity"]["passed"]
    assert (
        bundle.verdicts["parity"]["cases"]
        > bundle_of(file, merge.fixed(Fraction(1, 4))).verdicts["parity"]["cases"]
    )
    wrong = verdicts.reference_of
    monkeypatch.setattr(verdicts, "reference_of", lambda *args: wrong(*args[:4]))
    with pytest.raises(VerdictError, match="parity failed"):
        bundle_of(file, merge)


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_exported_program(tmp_path: Path, again: bool) -> None:
    file = tmp_path / "llama.pt2"
    save_program("llama", file)
    bundle = bundle_of(file)
    assert bundle.verdicts["parity"]["passed"] and bundle.manifest["family"] == "onnx"
    assert len(bundle.manifest["components"][0]["merges"]) == 3
    assert not again or api.validate(bundle.path, file, threads=1)["parity"]["passed"]


def test_shapes_of_others_are_not_believed(tmp_path: Path) -> None:
    """value_info with names that contradict each other, no metadata, weights listed as inputs, nodes without names."""
    file = tmp_path / "plain.onnx"
    export("plain", file, old=True, opset=16)
    model = onnx.load(file)
    for node in model.graph.node:
        node.name = ""
        del node.metadata_props[:]
    for index, node in enumerate(model.graph.node):
        if node.op_type in ("MatMul", "Add"):
            wrong = onnx.helper.make_tensor_value_info(
                node.output[0], 1, [f"a{index}", f"b{index}", f"c{index}"]
            )
            model.graph.value_info.append(wrong)
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    onnx.save(model, file)
    bundle = bundle_of(file)
    assert len(bundle.manifest["components"][0]["merges"]) == 5
    assert [tensor["name"] for tensor in bundle.manifest["components"][0]["inputs"]] == ["x"]


def test_external_data(tmp_path: Path) -> None:
    export("plain", tmp_path / "inline.onnx", old=True)
    model = onnx.load(tmp_path / "inline.onnx")
    file = tmp_path / "plain.onnx"
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 1000
    assert bundle_of(file).verdicts["parity"]["passed"]


def test_fixed_sizes_are_said(tmp_path: Path) -> None:
    """Declared dynamic, frozen inside."""
    file = tmp_path / "plain.onnx"
    export("plain", file, old=True, fixed=True)
    model = onnx.load(file)
    for axis, name in ((0, "batch"), (1, "length")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, file)
    example = tmp_path / "example.npz"
    np.savez(example, x=np.random.default_rng(0).standard_normal((2, 24, 3)).astype(np.float32))
    bundle = bundle_of(file, inputs=example)
    assert any(
        "runs at no other size of batch = 2, length = 24" in note for note in bundle.verdicts["cost"]["notes"]
    )
    assert bundle.manifest["components"][0]["inputs"][0]["dims"] == [2, 24, 3]


def test_commands(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(llama.with_name("out"))
    common = ["--threads", "1"]
    assert main_export([str(llama), "--ratio", "1/4", "--protect-first", "1", "-o", out, *common]) == 0
    text = capsys.readouterr().out
    assert "the original graph, run operator by operator" in text and "y: root mean square" in text
    assert main(["validate", out, str(llama), *common]) == 0
    assert main(["inspect", out]) == 0
    capsys.readouterr()
    card = (Path(out) / "README.md").read_text()
    assert "run operator by operator" in card and "eager model" not in card
    table = llama.with_name("series.csv")
    table.write_text("a\n" + "".join(f"{n % 7}\n" for n in range(60)))
    for flags, code, message in (
        (["--opset", "20"], 2, "--opset has no effect"),
        (["--data", str(table)], 2, "--data has no effect"),
        (["--token-mask", "nope"], 2, "the inputs are input_ids, attention_mask"),
        (["--positions", "compact"], 3, "use gather"),
        (["--inputs", str(llama)], 2, "cannot be read as a .npz"),
        (["--layers", "7"], 2, "layers 0 to 2"),
    ):
        assert main_export([str(llama), *flags, "-o", out + "2", *common]) == code
        assert message in capsys.readouterr().err
    assert main(["forecast", out, "x.csv", "-o", "y.csv"]) in (2, 3)


def test_models_are_all_tested() -> None:
    assert set(MODELS) == {case[0] for case in CASES}


def test_bad_example(llama: Path, tmp_path: Path) -> None:
    for arrays, message in (
        ({"input_ids": np.ones((2, 5), np.int64)}, "has no array 'attention_mask'"),
        ({"input_ids": np.ones(5, np.int64), "attention_mask": np.ones((2, 5))}, r"is \[5\], expected"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(UsageError, match=message):
            bundle_of(llama, inputs=tmp_path / "x.npz")
