"""``.pt2`` files: what torch reads is what was checked, and nothing in a file runs."""

from __future__ import annotations

import json
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tsmerge_export.checkpoint.program_file import read_program
from tsmerge_export.errors import TsmergeError

Change = Callable[[str, bytes], bytes]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "p.pt2"
    dynamic = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    torch.manual_seed(0)
    made = torch.export.export(nn.Linear(4, 2), (torch.randn(2, 3, 4),), dynamic_shapes=dynamic)
    torch.export.save(made, file)
    return file


def as_it_is(name: str, data: bytes) -> bytes:
    return data


def pack(program: Path, change: Change, extra: str | None = None, compression: int = 0) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), change(name, old.read(name)), compression)
        if extra is not None:
            new.writestr(zipfile.ZipInfo(extra), b"x")
    return out.getvalue()


def changed(program: Path, path: Path, change: Change, extra: str | None = None) -> Path:
    path.write_bytes(pack(program, change, extra))
    return path


def schema(change: Callable[[dict[str, Any]], object]) -> Change:
    def on(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return on


class Bad:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.mark)!r}, 'w')",)


def saved(thing: object) -> bytes:
    out = BytesIO()
    torch.save(thing, out)
    return out.getvalue()


def refuses(file: Path, message: str) -> None:
    with pytest.raises(TsmergeError, match=message) as caught:
        read_program(file)
    assert "\n" not in str(caught.value)


def test_passes_unchanged(program: Path, tmp_path: Path) -> None:
    """Also as another zip writer packs it; weights, names and dynamic sizes survive the rewriting."""
    x = torch.randn(5, 7, 4)
    want = torch.export.load(program).module()(x)
    for file in (program, changed(program, tmp_path / "same.pt2", as_it_is)):
        found = read_program(file)
        assert found.graph_signature.user_inputs == ("input",)
        (got,) = found.module()(x)
        assert torch.equal(got, want)


def test_nothing_in_a_file_runs(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    def flagged(name: str, data: bytes) -> bytes:
        if name.endswith("weights/weight_0"):
            return saved(Bad(mark))
        return data.replace(b'"use_pickle": false', b'"use_pickle": true')

    def evaluated(name: str, data: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return data
        text = json.dumps(json.loads(data))
        return text.replace("Symbol('", f"open('{mark}', 'w') or Symbol('").encode()

    def called(name: str, data: bytes) -> bytes:
        return data.replace(b"torch.ops.aten.linear.default", b"torch.hub.load")

    for change, message in (
        (flagged, "is pickled"),
        (evaluated, "no plain size expression"),
        (called, "'torch.hub.load', which is no operator of aten"),
    ):
        refuses(changed(program, tmp_path / "bad.pt2", change), message)
    for name in (
        "p/data/constants/opaque_obj_0",
        "p/data/constants/custom_obj_0",
        "p/data/aotinductor/model/x.so",
        "p/data/weights/model.pt",
    ):
        refuses(changed(program, tmp_path / "more.pt2", as_it_is, name), "would be executed on loading")
    assert not mark.exists()


def test_sample_inputs_are_not_read(program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    def pickled(name: str, data: bytes) -> bytes:
        return pickle.dumps(Bad(mark)) if name.endswith("sample_inputs/model.pt") else data

    assert read_program(changed(program, tmp_path / "p.pt2", pickled)).example_inputs is None
    assert not mark.exists()


@pytest.mark.parametrize("how", ["defaultdict", "enum"])
def test_no_module_is_imported(
    how: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch imports the modules that the structure of inputs and outputs names: any file on the path would run."""
    (tmp_path / "tsmerge_evil_module.py").write_text("class Found(dict): x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    if how == "enum":
        context: Any = json.dumps({"__enum__": True, "fqn": "tsmerge_evil_module:Found", "name": "x"})
        kind = "builtins.tuple"
    else:
        kind = "collections.defaultdict"
        context = {
            "default_factory_module": "tsmerge_evil_module",
            "default_factory_name": "Found",
            "dict_context": ["y"],
        }

    def structure(content: dict[str, Any]) -> None:
        entry = content["graph_module"]["module_call_graph"][0]["signature"]
        protocol, leaf = json.loads(entry["out_spec"])
        entry["out_spec"] = json.dumps(
            [protocol, {"type": kind, "context": context, "children_spec": [leaf]}]
        )

    file = changed(program, tmp_path / "p.pt2", schema(structure))
    assert len(read_program(file).module()(torch.ones(2, 3, 4))) == 1
    assert "tsmerge_evil_module" not in sys.modules


def two_directories(benign: bytes, evil: bytes) -> bytes:
    """Both archives in one file: the last end record is the benign one's, zip64 points at that of the evil one."""

    def parts(data: bytes) -> tuple[bytes, bytes, int]:
        count, size, offset = struct.unpack("<HLL", data[-12:-2])
        return data[:offset], data[offset : offset + size], count

    def end_64(count: int, size: int, offset: int) -> bytes:
        return struct.pack("<LQHHLLQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, offset)

    (files, directory, count), (other, evil_directory, _) = parts(benign), parts(evil)
    moved, position = bytearray(evil_directory), 0
    while position < len(moved):
        lengths = struct.unpack_from("<HHH", moved, position + 28)
        (offset,) = struct.unpack_from("<L", moved, position + 42)
        struct.pack_into("<L", moved, position + 42, offset + len(files))
        position += 46 + sum(lengths)
    out = files + other + bytes(moved)
    at = len(out)
    out += end_64(count, len(moved), len(files) + len(other))
    out += directory + end_64(count, len(directory), len(out))
    out += struct.pack("<LLQL", 0x07064B50, 0, at, 1)
    return out + struct.pack("<LHHHHLLH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def test_archives_with_two_contents(program: Path, tmp_path: Path) -> None:
    """Python's reader finds the benign one, torch's the other."""
    mark = tmp_path / "ran"

    def evil(name: str, data: bytes) -> bytes:
        if name.endswith("model_weights_config.json"):
            return data.replace(b'"use_pickle": false', b'"use_pickle": true')
        return saved(Bad(mark)) if name.endswith("weights/weight_0") else data

    benign, other = pack(program, as_it_is), pack(program, evil)
    file = tmp_path / "two.pt2"
    file.write_bytes(two_directories(benign, other))
    with zipfile.ZipFile(file) as seen:
        assert b'"use_pickle": true' not in seen.read("p/data/weights/model_weights_config.json")
    refuses(file, "is no plain archive")
    assert not mark.exists()
    for data in (b"junk" + benign, benign + b"junk", other + benign):
        file.write_bytes(data)
        refuses(file, "is no plain archive|truncated")


def test_nothing_grows_when_it_is_read(program: Path, tmp_path: Path) -> None:
    file = tmp_path / "packed.pt2"
    file.write_bytes(pack(program, as_it_is, compression=zipfile.ZIP_DEFLATED))
    refuses(file, "is compressed")


def test_odd_files(program: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt2").write_bytes(program.read_bytes()[:2000])
    refuses(tmp_path / "cut.pt2", "truncated")
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("a/b", b"")
    refuses(tmp_path / "other.pt2", r"not a file of torch\.export\.save")
    refuses(tmp_path / "none.pt2", "no such file")
    refuses(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.clear(),
        lambda content: content["graph_module"].update(module_call_graph=[]),
        lambda content: content["graph_module"].update(graph=None),
        lambda content: content["graph_module"]["graph"].update(nodes=None),
        lambda content: content["graph_module"]["graph"]["nodes"][0].update(inputs=7),
        lambda content: content.update(range_constraints={"s0**(s0**s0)": {"min_val": 0, "max_val": 9}}),
        lambda content: content.update(schema_version={"major": 99, "minor": 0}),
    ],
)
def test_odd_schemas(change: Callable[[dict[str, Any]], object], program: Path, tmp_path: Path) -> None:
    refuses(changed(program, tmp_path / "p.pt2", schema(change)), re.escape(str(tmp_path)))


def test_a_tensor_may_be_called_target(tmp_path: Path) -> None:
    """Its name is no operator that a program calls."""

    class Model(nn.Module):
        def forward(self, target: torch.Tensor) -> torch.Tensor:
            return target + 1

    file = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(Model(), (torch.zeros(2, 3),)), file)
    (found,) = read_program(file).module()(torch.ones(2, 3))
    assert found.tolist() == [[2.0] * 3] * 2
