"""Engines of TensorRT-RTX, really built: ahead of time, without a GPU."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import onnx
import pytest

import tsmerge_export as tsm
from tests.artefacts import built
from tests.models import T5, tiny
from tsmerge_export import families
from tsmerge_export.backends.base import Part
from tsmerge_export.backends.engines.backend import check_removed
from tsmerge_export.backends.engines.lower import set_precision
from tsmerge_export.backends.engines.profile import Profile, make_profile
from tsmerge_export.backends.static_functions import static_functions
from tsmerge_export.backends.target import Target
from tsmerge_export.backends.tensorrt_rtx import engine as tensorrt_rtx
from tsmerge_export.backends.tensorrt_rtx.backend import TensorRTRTX
from tsmerge_export.backends.tensorrt_rtx.form import standard_form
from tsmerge_export.bundle import sha256
from tsmerge_export.cli.target import capabilities
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.hand_over import removed_at
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError
from tsmerge_export.onnx_model.weights import write_model
from tsmerge_export.ops import static
from tsmerge_export.settings.config import MergeConfig

PROFILE = Profile({"context": ((1, 64), (2, 128), (4, 256))})


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX (pip install tensorrt-rtx-cu13)")


def test_a_bundle_holds_an_engine_of_chronos_bolt(rtx: None, tmp_path: Path) -> None:
    shapes = ({"context": (1, 64)}, None, {"context": (4, 256)})
    target = Target("tensorrt-rtx", shapes=shapes, capabilities=("86",))
    merge = MergeConfig(ratio="1/4")
    bundle = tsm.export(tiny("chronos-bolt").eval(), merge, output=tmp_path / "bundle", target=target)
    entry = bundle.manifest["target"]["components"]["model"]
    engine = bundle.path / entry["engine"]
    assert engine.stat().st_size == entry["plan"]["merged"]["engine_bytes"] > 10_000
    assert entry["engine_sha256"] == sha256(engine) == bundle.manifest["files"][engine.name]["sha256"]
    assert entry["parity"]["passed"]
    assert entry["compute_capabilities"] == ["86"]
    # Planned for 4 rows of 33 tokens of 16 numbers: a bound that fell apart shows as gigabytes.
    for plan in entry["plan"].values():
        assert 0 < plan["activation_bytes"] < 64 << 20
    report = json.loads((bundle.path / "report.json").read_text())
    assert report["target"] == bundle.manifest["target"]
    card = (bundle.path / "README.md").read_text()
    assert "memory planned by the compiler, not measured" in card
    assert TensorRTRTX.on_gpu in card
    flags = "--runtime tensorrt-rtx --dtype fp32 --min-shapes context:1x64 --max-shapes context:4x256"
    assert bundle.report["run"]["target"] == [*flags.split(), "--compute-capability", "86"]
    page = html.unescape((bundle.path / "report.html").read_text())
    again = re.search(r"tsm\.Target\(.*\)(?=\))", page)  # the model came from memory: Python, not a command
    assert again is not None
    assert eval(again[0], {"tsm": tsm}) == target
    assert tsm.load(bundle.path).inputs[0].name == "context"
    with pytest.raises(UnsupportedError, match="run by TensorRT-RTX itself"):
        tsm.load(bundle.path, runtime="tensorrt-rtx")
    with pytest.raises(UsageError, match="was made for tensorrt-rtx; export it with --runtime tensorrt"):
        tsm.load(bundle.path, runtime="tensorrt")
    with engine.open("ab") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match=r"rtx\.engine: was changed"):
        tsm.load(bundle.path)


@pytest.mark.slow
def test_six_layers_of_chronos_t5_in_half_precision(rtx: None, tmp_path: Path) -> None:
    family = families.get("chronos-t5")
    model = family.build({**T5, "num_layers": 6}).eval()
    component = family.components(model)[0]
    made = Compilation(CheckpointSource.load(model), MergeConfig(ratio="1/8")).merged(component, tmp_path)
    static = static_functions(set_precision(onnx.load(made.merged), "fp16"), merge=True)
    write_model(standard_form(static), tmp_path / "static.onnx")
    profile = make_profile(component.inputs, (None, None, None), longest=family.context(model))
    engine = tensorrt_rtx.build_engine(tmp_path / "static.onnx", tmp_path / "engine", profile, ("80",))
    assert engine.engine_bytes == (tmp_path / "engine").stat().st_size > 10_000


def test_what_cannot_be_built_is_one_line(rtx: None, tmp_path: Path) -> None:
    """The portable form has NonZero, which TensorRT-RTX does not parse."""
    portable = built("bolt-tiny", MergeConfig(ratio="1/4")).merged
    with pytest.raises(UnsupportedError, match=r"TensorRT-RTX cannot build it: .*NonZero") as raised:
        tensorrt_rtx.build_engine(portable, tmp_path / "engine", PROFILE)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "engine").exists()


def test_more_than_topk_can_choose_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a TopK that chooses fewer: the tokens that merge are counted by running the graph at that length."""
    monkeypatch.setattr(static, "TOPK_MOST", 384)
    merge = MergeConfig(method="global", ratio="1/2")
    found = []
    for name in ("bolt-tiny", "t5-tiny"):
        item = built(name, merge)
        found.append(
            Part(name, [], [], item.unmerged, item.merged, True, 512, removed_at(item.merged), None)  # type: ignore[arg-type]
        )
    bolt, t5 = found
    check_removed(bolt, Profile({"context": ((1, 64), (1, 64), (1, 5000))}))  # 256 steps are read, 33 tokens
    check_removed(t5, Profile({"input_ids": ((1, 64), (1, 64), (1, 760))}))
    with pytest.raises(UnsupportedError, match="TopK chooses at most 384"):
        check_removed(t5, Profile({"input_ids": ((1, 64), (1, 64), (1, 780))}))


def test_capabilities() -> None:
    assert capabilities("80, 8.6,86") == ("80", "86")
    with pytest.raises(
        UsageError, match="--compute-capability 80,90: '90' is none that TensorRT-RTX builds for"
    ):
        Target("tensorrt-rtx", capabilities=("80", "90")).check(MergeConfig(), inline=False)


def test_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tensorrt_rtx.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tsmerge-export\[tensorrt-rtx\]'"):
        tensorrt_rtx.build_engine(tmp_path / "m", tmp_path / "e", PROFILE)


@pytest.mark.parametrize(
    ("target", "merge", "inline", "kind", "says"),
    [
        (Target("cuda"), MergeConfig(), False, UsageError, "'cuda' is not known"),
        (Target("tensorrt", dtype="fp8"), MergeConfig(), False, UsageError, "--dtype fp8"),
        (
            Target(dtype="fp16"),
            MergeConfig(),
            False,
            UsageError,
            "--dtype has no effect with --runtime onnxruntime",
        ),
        (
            Target(capabilities=("80",)),
            MergeConfig(),
            False,
            UsageError,
            "--compute-capability has no effect",
        ),
        (Target(shapes=({"x": (1,)}, None, None)), MergeConfig(), False, UsageError, "--min-shapes"),
        (Target("tensorrt"), MergeConfig(), True, UsageError, "--inline has no effect"),
        (
            Target("tensorrt"),
            MergeConfig(method="dynamic"),
            False,
            UnsupportedError,
            "--merge dynamic cannot run",
        ),
        (
            Target("tensorrt-rtx"),
            MergeConfig(method="pitome"),
            False,
            UnsupportedError,
            "--merge pitome cannot run",
        ),
        (
            Target("tensorrt"),
            MergeConfig(causal=True),
            False,
            UnsupportedError,
            "--causal is not in the Tensor",
        ),
        (
            Target("tensorrt"),
            MergeConfig(similarity="l2"),
            False,
            UnsupportedError,
            "--similarity l2 is not in the TensorRT plugin",
        ),
        (Target("tensorrt-rtx", dtype="bf16"), MergeConfig(), False, UnsupportedError, "bf16 is not proved"),
        (Target("tensorrt-rtx", plugin=Path("x")), MergeConfig(), False, UsageError, "has no plugins"),
        (Target("tensorrt", capabilities=("80",)), MergeConfig(), False, UsageError, "for the GPU there"),
    ],
)
def test_targets_that_cannot_work(
    target: Target, merge: MergeConfig, inline: bool, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        target.check(merge, inline=inline)
