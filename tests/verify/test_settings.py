"""The merge nodes of a file must be those of its settings: every attribute of every node, in every form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree

import numpy as np
import onnx
import pytest

from tests.families.harness import Subject
from tests.verify.bundles import save_again
from tsmerge_export import api
from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.eager.apply import plan_of
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import forms, parity, settings
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.version import versions as versions_now

BOLT, STATES = Subject("chronos-bolt"), Subject("patch-mamba")
LAST = MergeConfig(ratio="1/4")
CHOSEN = MergeConfig(ratio="runtime:1/4", min_tokens=3)
EVERY = [
    (BOLT, MergeConfig(ratio="1/4", min_tokens=3)),
    (BOLT, MergeConfig(r=(2, 3), causal=True, similarity="l2")),
    (BOLT, MergeConfig(method="global", ratio="1/3", schedule="constant", similarity="dot")),
    (BOLT, MergeConfig(method="dynamic", k=2, threshold=0.3, similarity="l2")),
    (BOLT, MergeConfig(method="pitome", ratio="1/4", margin=0.4)),
    (BOLT, MergeConfig(method="ssm", ratio="1/4", prune_share="1/3")),
    (BOLT, CHOSEN),
    pytest.param(
        STATES,
        MergeConfig(method="ssm", ratio="1/4", metric="hidden", residual_prune_share="1/3"),
        marks=pytest.mark.slow,
    ),
]


def changes(node: onnx.NodeProto) -> Iterator[tuple[str, int | float]]:
    """Every attribute, moved as little as its type allows."""
    for item in node.attribute:
        if item.type == onnx.AttributeProto.FLOAT:
            yield item.name, float(np.nextafter(np.float32(item.f), np.float32(9)))
        else:
            yield item.name, item.i + 1


def changed(model: onnx.ModelProto, place: int, name: str, value: int | float) -> onnx.ModelProto:
    out = onnx.ModelProto()
    out.CopyFrom(model)
    node = settings.merge_nodes(out)[place]
    item = next(item for item in node.attribute if item.name == name)
    item.CopyFrom(onnx.helper.make_attribute(name, value))
    return out


@pytest.mark.parametrize(("subject", "merge"), EVERY, ids=lambda value: getattr(value, "method", ""))
def test_every_attribute_of_every_merge_node(subject: Subject, merge: MergeConfig) -> None:
    model = onnx.load(subject.built(merge).merged)
    plan = plan_of(subject.family, subject.model, merge)
    assert settings.faults(model, plan) == []
    nodes = settings.merge_nodes(model)
    assert len(nodes) == len(plan) >= 2
    tried = 0
    for place, node in enumerate(nodes):
        for name, value in changes(node):
            found = settings.faults(changed(model, place, name, value), plan)
            assert len(found) == 1 and f" {name} is " in found[0] and f"layer {place}" in found[0], found
            tried += 1
    assert tried >= 2 * (6 if merge.method == "dynamic" else 7)


def test_nodes_that_are_missing_or_of_another_kind() -> None:
    merge = EVERY[0][1]
    plan = plan_of(BOLT.family, BOLT.model, merge)
    model = onnx.load(BOLT.built(merge).merged)
    node = settings.merge_nodes(model)[0]
    kept = [item for item in node.attribute if item.name != "min_tokens"]
    twice = [*node.attribute, node.attribute[0]]
    foreign = [*node.attribute, onnx.helper.make_attribute("margin", 0.5)]
    text = [*kept, onnx.helper.make_attribute("min_tokens", "3")]
    for attributes, words in (
        (kept, "min_tokens is missing, the settings say 3"),
        (twice, "there twice"),
        (foreign, "unknown attribute margin"),
        (text, "min_tokens is no number"),
    ):
        other = onnx.ModelProto()
        other.CopyFrom(model)
        own = settings.merge_nodes(other)[0]
        fresh = [onnx.AttributeProto.FromString(item.SerializeToString()) for item in attributes]
        del own.attribute[:]
        own.attribute.extend(fresh)
        assert words in settings.faults(other, plan)[0]
    node.op_type = "PitomeMerge"
    assert "operator PitomeMerge, the settings say LocalMerge" in settings.faults(model, plan)[0]
    node.domain = "other"
    assert settings.faults(model, plan) == ["1 merge nodes in the file, but the settings merge at 2 places"]


def test_a_ratio_that_is_chosen_comes_from_the_input_and_has_the_default_of_the_settings() -> None:
    plan = plan_of(BOLT.family, BOLT.model, CHOSEN)

    def found(change: Callable[[onnx.ModelProto], object]) -> list[str]:
        model = onnx.load(BOLT.built(CHOSEN).merged)
        change(model)
        return settings.faults(model, plan)

    def source(model: onnx.ModelProto) -> onnx.NodeProto:
        return next(node for node in model.graph.node if node.op_type == "ExactRatio")

    assert found(lambda model: None) == []
    for value in ("1/5", "", "0.25"):
        (fault,) = found(lambda model, value=value: setattr(model.metadata_props[0], "value", value))  # type: ignore[misc]
        assert fault == f"the default ratio is {value}, the settings say 1/4"
    (fault,) = found(lambda model: model.metadata_props.pop())
    assert "the default ratio is None" in fault
    elsewhere = "its ratio does not come from the input merge_ratio"
    for change in (
        lambda model: source(model).input.__setitem__(0, "context"),
        lambda model: setattr(source(model), "op_type", "Identity"),
        lambda model: settings.merge_nodes(model)[0].input.pop(),
        lambda model: settings.merge_nodes(model)[0].input.__setitem__(3, "context"),
        lambda model: model.graph.input.pop(),
    ):
        assert all(elsewhere in fault for fault in found(change)) and found(change)
    # The other way round: a file of one ratio must not read one.
    fixed = plan_of(BOLT.family, BOLT.model, MergeConfig(ratio="1/4", min_tokens=3))
    assert any("has other inputs" in fault for fault in settings.faults(BOLT.built(CHOSEN).merged, fixed))


def test_a_last_merge_of_another_share_shows_at_a_chosen_length(tmp_path: Path) -> None:
    """By what the file computes alone: at the lengths of the corpus a quarter and a fifth were the same."""
    built, plan = BOLT.built(LAST), plan_of(BOLT.family, BOLT.model, LAST)
    file = tmp_path / "m.onnx"
    onnx.save(changed(onnx.load(built.merged), 1, "min_tokens", 5), file)
    usual = parity.check(BOLT.family, BOLT.component, BOLT.model, LAST, file, Checks(threads=1))
    assert usual.passed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "faults", lambda *_: [])
        report = parity.check(
            BOLT.family, BOLT.component, BOLT.model, LAST, file, Checks(threads=1), plan=plan
        )
    assert not report.passed and report.to_dict()["kept_mismatches"] > 0
    assert not {failure.split(":")[0] for failure in report.failures} & {case.name for case in usual.cases}


def test_validate_fails_on_an_edited_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through the whole command, with the hashes made new."""
    merge = MergeConfig(ratio=("1/3", "1/4"))
    bundle = tmp_path / "bundle"
    copytree(BOLT.bundle(merge), bundle)
    monkeypatch.setattr(Compilation, "merged", lambda *_, **__: BOLT.built(merge))
    monkeypatch.setattr(parity.corpus, "lengths", lambda context: (37, context))

    def verdict() -> dict:
        return api.validate(bundle, BOLT.model, threads=1)["parity"]

    assert verdict()["passed"]
    onnx.save(changed(onnx.load(bundle / "model.onnx"), 1, "ratio_den", 5), bundle / "model.onnx")
    save_again(bundle)
    found = verdict()
    assert not found["passed"]
    assert found["failures"][0].startswith("merge at layer 1 (node ")
    assert found["failures"][0].endswith("ratio_den is 5, the settings say 4")
    json.dumps(found, allow_nan=False)


def test_forms_for_other_runtimes(tmp_path: Path) -> None:
    pytest.importorskip("onnx_graphsurgeon")
    from tsmerge_export.backends.engines.lower import set_precision
    from tsmerge_export.backends.static_functions import static_functions
    from tsmerge_export.backends.tensorrt.plugin_form import plugin_form
    from tsmerge_export.backends.tensorrt_rtx.form import standard_form

    merge, folder = LAST, tmp_path / "bundle"
    copytree(BOLT.bundle(merge), folder)
    plan = plan_of(BOLT.family, BOLT.model, merge)
    source = onnx.load(folder / "model.onnx")
    made = {
        "tensorrt": plugin_form(set_precision(static_functions(source, merge=False), "fp16")),
        "tensorrt-rtx": standard_form(static_functions(set_precision(source, "fp16"), merge=True)),
    }
    for runtime, form in made.items():
        target = {"runtime": runtime, "dtype": "fp16", "components": {"model": {"onnx": "form.onnx"}}}
        versions = versions_now()

        def faults(changed_form: onnx.ModelProto, **more: object) -> list[str]:
            onnx.save(changed_form, folder / "form.onnx")
            save_again(folder, target=target, versions=versions | more)  # noqa: B023
            return forms.faults(Bundle.open(folder), plan)

        assert faults(form) == []
        other = onnx.ModelProto()
        other.CopyFrom(form)
        weight = next(item for item in other.graph.initializer if len(item.raw_data) > 64)
        weight.raw_data = weight.raw_data[:-1] + bytes([weight.raw_data[-1] ^ 1])
        assert "is not what model.onnx becomes" in faults(other)[0]
        assert faults(other, onnx="1.0") == []  # what another version wrote may look different
    nodes = settings.merge_nodes(made["tensorrt"])
    assert len(nodes) == 2
    for place, node in enumerate(nodes):
        for name, value in changes(node):
            if name not in ("plugin_version", "plugin_namespace"):
                assert (
                    f" {name} is " in settings.faults(changed(made["tensorrt"], place, name, value), plan)[0]
                )


def test_another_family_plan_counts_its_places() -> None:
    built: Built = BOLT.built(MergeConfig(method="none"))
    assert "0 merge nodes" in settings.faults(built.merged, plan_of(BOLT.family, BOLT.model, LAST))[0]
