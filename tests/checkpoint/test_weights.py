"""Damaged, missing and surplus weights: one clear error each."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.helpers import fails
from tests.models import BOLT, tiny
from tsmerge_export.checkpoint import save_checkpoint
from tsmerge_export.errors import UsageError


def test_no_weights(bolt: Path) -> None:
    (bolt / "model.safetensors").unlink()
    fails(UsageError, r"no model\.safetensors", bolt)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -1000])
def test_truncated_safetensors(bolt: Path, keep: int) -> None:
    file = bolt / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    fails(UsageError, r"model\.safetensors: truncated", bolt)


def test_weights_that_are_not_numbers(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    weights = load_file(file)
    weights["shared.weight"][1, 2] = float("nan")
    save_file(weights, file)
    fails(UsageError, r"weight shared\.weight holds NaN", bolt)


def _header(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write(file: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _longer_shape(header: dict[str, Any]) -> None:
    header["shared.weight"]["shape"][0] += 1


def _unknown_dtype(header: dict[str, Any]) -> None:
    header["shared.weight"]["dtype"] = "F7"


def _overlap(header: dict[str, Any]) -> None:
    begin, end = header["shared.weight"]["data_offsets"]
    header["shared.weight"]["data_offsets"] = [begin - 4, end - 4]


def _no_offsets(header: dict[str, Any]) -> None:
    del header["shared.weight"]["data_offsets"]


@pytest.mark.parametrize("damage", [_longer_shape, _unknown_dtype, _overlap, _no_offsets])
def test_corrupt_safetensors_header(bolt: Path, damage: Any) -> None:
    file = bolt / "model.safetensors"
    header, data = _header(file)
    damage(header)
    _write(file, header, data)
    fails(UsageError, r"model\.safetensors: corrupt", bolt)


def test_safetensors_with_surplus_bytes_or_no_json(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole + b"xx")
    fails(UsageError, "truncated or corrupt", bolt)
    file.write_bytes(whole[:8] + b"\0" * 20 + whole[28:])
    fails(UsageError, "corrupt safetensors header", bolt)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/../../x.safetensors", "..", "C:\\x", ""]
)
def test_shard_outside_the_folder(bolt: Path, name: str) -> None:
    (bolt / "model.safetensors").rename(bolt.parent / "model.safetensors")
    index = bolt / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": name}}))
    fails(UsageError, "not a plain file name", bolt)


def test_missing_and_repeated_shards(bolt: Path) -> None:
    (bolt / "model.safetensors").rename(bolt / "a.safetensors")
    index = bolt / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    fails(UsageError, r"b\.safetensors: this shard is missing", bolt)
    shutil.copy(bolt / "a.safetensors", bolt / "b.safetensors")
    fails(UsageError, "also in another shard", bolt)
    index.write_text("{}")
    fails(UsageError, "weight_map", bolt)


def test_missing_weight(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    weights = load_file(file)
    # Random values in its place would be a wrong model without any sign; transformers only warns.
    del weights["output_patch_embedding.hidden_layer.bias"]
    save_file(weights, file)
    fails(UsageError, "1 weights are missing, first output_patch_embedding.hidden_layer.bias", bolt)


def test_unexpected_weight(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    save_file({**load_file(file), "extra": torch.ones(2)}, file)
    fails(UsageError, "1 unexpected weights, first extra", bolt)


def test_weights_of_another_size(bolt: Path) -> None:
    (bolt / "config.json").write_text(json.dumps({**BOLT, "d_ff": 64}))
    fails(UsageError, r"has shape \[.*\], the config says", bolt)


def test_integer_weights(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    weights = load_file(file)
    weights["shared.weight"] = weights["shared.weight"].to(torch.int8)
    save_file(weights, file)
    fails(UsageError, "int8", bolt)


def test_size_cap(bolt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_checkpoint(tiny("chronos-bolt"), bolt / "m.pt")
    monkeypatch.setenv("TSMERGE_MAX_MODEL_BYTES", "1000")
    fails(UsageError, "exceed the cap of 1000", bolt)
    fails(UsageError, "exceed the cap of 1000", path)
    monkeypatch.setenv("TSMERGE_MAX_MODEL_BYTES", "plenty")
    fails(UsageError, "whole number of bytes", bolt)
