"""The typed manifest: bundles of every age open, and whatever a file says is read or refused in one line."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.json_places import at, below, changed
from tests.bundle.made import fails
from tsmerge_export import typed
from tsmerge_export.bundle import MANIFEST, Bundle, sha256
from tsmerge_export.bundle.manifest import FileEntry, Manifest, manifest_of, to_dict
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Hints, TensorSpec
from tsmerge_export.graphs.model import GraphComponent
from tsmerge_export.rewrite.insert import BarrierReport, MergeReport, RewriteReport
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.built import Built

#: As the first version wrote it, and as the last one did before the manifest had types.
AGES = ("first", "before_types")
FILE = Path("a folder") / MANIFEST


def written(age: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(__file__).parent / "manifests" / f"{age}.json").read_text())
    return content


def bundle(age: str, folder: Path) -> Path:
    """A bundle of that age, with other files."""
    content = written(age)
    for name in content["files"]:
        (folder / name).write_bytes(b"content of " + name.encode())
        content["files"][name] = {"size": len(name) + 11, "sha256": sha256(folder / name)}
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("age", AGES)
def test_bundles_of_every_age_open(age: str, tmp_path: Path) -> None:
    opened = Bundle.open(bundle(age, tmp_path))
    found = opened.contents
    assert (found.family, found.source, found.opset, found.inline) == ("chronos-bolt", "tiny", 18, False)
    assert opened.merge == found.setting == MergeConfig("local", ratio="1/4")
    assert found.verdicts.passed and found.verdicts.parity is not None and found.verdicts.cost is not None
    assert found.verdicts.parity.cases == written(age)["verdicts"]["parity"]["cases"] >= 80
    assert found.verdicts.cost.columns[0].column == "load"
    assert (
        found.verdicts.cost.median.unmerged["wql"]
        == opened.verdicts["cost"]["overall"]["median"]["unmerged"]["wql"]
    )
    (part,) = found.components
    assert [(merge.layer, merge.op_type) for merge in part.merges] == [(0, "LocalMerge"), (1, "LocalMerge")]
    assert part.merges[0].attributes["ratio_den"] == 4
    assert (part.inputs[0].name, part.outputs[0].dims) == ("context", ("batch", 3, 16))
    assert found.files["model.onnx"] == FileEntry(21, sha256(tmp_path / "model.onnx"))
    assert found.graph is None and found.target is None
    # Dicts stay what they were.
    assert opened.manifest["components"][0]["merges"] == list(opened.components[0].merges)
    assert opened.manifest["verdicts"] == opened.verdicts


def test_what_early_bundles_lack() -> None:
    first, last = (manifest_of(written(age), FILE) for age in AGES)
    assert (first.pipeline, first.notes) == (None, ())
    assert last.pipeline is not None and last.pipeline["context_length"] == 256
    assert first.verdicts.cost is not None and last.verdicts.cost is not None
    assert first.verdicts.cost.changes == {} and set(last.verdicts.cost.changes) == {"mse", "mae", "wql"}


#: Places that hold whatever the method, the family or the operator says.
FREE = {"merge", "pipeline", "attributes"}


@pytest.mark.parametrize("age", AGES)
def test_any_value_anywhere_is_read_or_refused(age: str) -> None:
    content, refused = written(age), 0
    for place in changed(content):
        try:
            found = manifest_of(content, FILE)
        except UsageError as error:
            line = str(error)
            assert "\n" not in line and line.startswith(str(FILE.parent)) and len(line) < 250
            name = next(one for one in reversed(place) if isinstance(one, str))
            assert name in line or "is missing" in line or place == ("format_version",), (place, line)
            refused += 1
        else:
            assert isinstance(found, Manifest)
    places = [place for place in below(content) if place and not FREE & set(place)]
    assert refused > 6 * len(places)  # of twelve values each


def same(content: Any, again: Any) -> bool:
    """Whether all that was said is said again, and more at most."""
    if isinstance(content, dict):
        return all(name in again and same(value, again[name]) for name, value in content.items())
    if isinstance(content, list):
        return len(content) == len(again) and all(map(same, content, again))
    return bool(content == again)


@pytest.mark.parametrize("age", AGES)
def test_what_is_written_is_what_was_read(age: str) -> None:
    found, content = manifest_of(written(age), FILE), written(age)
    again = {name: content[name] for name in ("format", "format_version")} | json.loads(
        json.dumps(to_dict(found))
    )
    assert manifest_of(again, FILE) == found
    assert same(content, again)
    if age == "before_types":  # which has it all, but where ONNX Runtime ran
        del again["providers"]
        assert same(again, content)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("files", "model.onnx", "size"), True, r"files\['model\.onnx'\]\.size is True, expected a whole number"),
        (("components", 0, "inputs", 0, "dims", 1), 1.5, r"components\[0\]\.inputs\[0\]\.dims\[1\] is 1\.5, expected"),
        (("components", 0, "merges", 1, "layer"), "1", r"components\[0\]\.merges\[1\]\.layer is '1', expected a whole"),
        (("verdicts", "parity", "passed"), "yes", r"verdicts\.parity\.passed is 'yes', expected true or false"),
        (("verdicts", "cost", "speed", "ratio"), [2.0], r"verdicts\.cost\.speed\.ratio is \[2\.0\], expected a number"),
        (("notes",), "a note", r"notes is 'a note', expected a list"),
        (("versions", "torch"), 2, r"versions\.torch is 2, expected text"),
        (("target",), [], r"target is \[\], expected an object"),
        (("target",), {"runtime": "tensorrt", "dtype": "fp32"}, r"target\.components is missing"),
        (("pipeline",), 3, r"pipeline is 3, expected an object"),
        (("created",), {"a": 1}, r"created is {'a': 1}, expected text"),
        (("inline",), 1, r"inline is 1, expected true or false"),
    ],
)  # fmt: skip
def test_a_line_names_the_file_and_the_field(
    place: tuple[Any, ...], value: Any, said: str, tmp_path: Path
) -> None:
    folder = bundle("before_types", tmp_path)
    content = json.loads((folder / MANIFEST).read_text())
    at(content, place[:-1])[place[-1]] = value
    (folder / MANIFEST).write_text(json.dumps(content))
    fails(r"manifest\.json: " + said, Bundle.open, folder)


@pytest.mark.parametrize("number", [0, 2, True, 1.0, "1", None, [1]])
def test_numbers_of_other_formats(number: Any) -> None:
    fails(
        r"bundle format .*, this version reads 1; ",
        manifest_of,
        {**written("first"), "format_version": number},
        FILE,
    )


def test_settings_that_this_version_does_not_know(tmp_path: Path) -> None:
    """They stop no one from running the files; who asks for them is told."""
    folder = bundle("before_types", tmp_path)
    content = json.loads((folder / MANIFEST).read_text())
    for merge, said in (
        ({"method": "local", "new": 1}, "unknown merge setting 'new'"),
        ({"ratio": {}}, "ratio"),
    ):
        (folder / MANIFEST).write_text(json.dumps({**content, "merge": merge}))
        opened = Bundle.open(folder)
        with pytest.raises(UsageError, match=rf"manifest\.json: .*{said}"):
            _ = opened.merge


def test_what_the_rewriter_says_is_what_is_read() -> None:
    """Field by field: nothing of its account is lost, nor is anything waited for that it does not say."""
    merge = MergeReport(3, "n", "LocalMerge", "a/b", "length", "tokens_after_layer_3", {"k": 1})
    barrier = BarrierReport(node="n", op_type="Conv", scope="s", reason="r")
    spec = TensorSpec("x", "float32", ("batch", 3))
    component = GraphComponent([spec], [TensorSpec("y", "int64", ())], Hints())
    report = RewriteReport([merge], [barrier], Fraction(1, 4))
    part = Built(component, FILE, Path("a folder/model.onnx"), None, report).entry()
    content = json.loads(json.dumps(typed.written(part)))
    assert content == {
        "name": "model",
        "file": "model.onnx",
        "inputs": [{"name": "x", "dtype": "float32", "dims": ["batch", 3]}],
        "outputs": [{"name": "y", "dtype": "int64", "dims": []}],
        "merges": [vars(merge)],
        "barriers": [vars(barrier)],
        "ratio": {"input": "merge_ratio", "default": "1/4"},
    }
    assert manifest_of({**written("first"), "components": [content]}, FILE).components == (part,)
    fixed = dataclasses.replace(part, ratio=None)
    assert typed.written(fixed) == {name: content[name] for name in content if name != "ratio"}
