"""Loading and saving of model files; every bad file is one clear error."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import T5ForConditionalGeneration

from tests.models import BOLT, T5, tiny, tiny_folder
from tsmerge_export.checkpoint import hub, load_model, save_checkpoint
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {name: tiny_folder(root / name, name) for name in ("chronos-bolt", "chronos-t5")}


@pytest.fixture
def bolt(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folders["chronos-bolt"], tmp_path / "bolt"))


def fails(kind: type[TsmergeError], match: str, *args: Any, **kwargs: Any) -> None:
    """Loading fails with one line that names what is wrong."""
    with pytest.raises(kind, match=match) as caught:
        load_model(*args, **kwargs)
    assert "\n" not in str(caught.value)


def same(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[name], weights[name]) for name in own)


@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5"])
def test_folder_gives_the_saved_weights(folders: dict[str, Path], family: str) -> None:
    loaded = load_model(folders[family])
    assert loaded.family == family
    assert loaded.source == str(folders[family])
    assert same(loaded.model, tiny(family).state_dict())
    assert not loaded.model.training
    assert all(not module.training for module in loaded.model.modules())


def test_loading_leaves_the_callers_random_state_alone(folders: dict[str, Path]) -> None:
    before = torch.get_rng_state()
    load_model(folders["chronos-bolt"])
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_weights_become_float32(bolt: Path) -> None:
    file = bolt / "model.safetensors"
    weights = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(weights, file)
    loaded = load_model(bolt)
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.float32}
    name = "shared.weight"
    assert torch.equal(loaded.model.state_dict()[name], weights[name].float())


def test_shards(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert same(load_model(folder).model, tiny("chronos-bolt").state_dict())


def test_pytorch_model_bin(bolt: Path) -> None:
    torch.save(tiny("chronos-bolt").state_dict(), bolt / "pytorch_model.bin")
    (bolt / "model.safetensors").unlink()
    assert same(load_model(bolt).model, tiny("chronos-bolt").state_dict())


@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5"])
def test_save_checkpoint_round_trip(tmp_path: Path, family: str) -> None:
    model = tiny(family, seed=3)
    path = save_checkpoint(model, tmp_path / "deep" / "model.pt")
    loaded = load_model(path)
    assert loaded.family == family
    assert same(loaded.model, model.state_dict())
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_save_checkpoint_takes_a_pipeline(folders: dict[str, Path], tmp_path: Path) -> None:
    from chronos import BaseChronosPipeline

    pipeline = BaseChronosPipeline.from_pretrained(folders["chronos-t5"])
    assert same(
        load_model(save_checkpoint(pipeline, tmp_path / "m.pt")).model, tiny("chronos-t5").state_dict()
    )


def test_save_checkpoint_refuses_what_it_could_not_load(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="Linear"):
        save_checkpoint(nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(UsageError, match="is a folder"):
        save_checkpoint(tiny("chronos-bolt"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_bare_state_dict_with_config(tmp_path: Path, suffix: str) -> None:
    weights = tiny("chronos-bolt").state_dict()
    path, config = tmp_path / f"weights.{suffix}", tmp_path / "config.json"
    if suffix == "pt":
        torch.save(weights, path)
    else:
        save_file({n: t.clone() for n, t in weights.items()}, path)
    config.write_text(json.dumps(BOLT))
    assert same(load_model(path, config=config).model, weights)
    fails(UsageError, r"add --config config\.json", path)


def test_tied_weights_that_differ_in_the_file_are_separated(tmp_path: Path) -> None:
    # As the published Chronos-T5 checkpoints: tie_word_embeddings false, an lm_head of its own.
    config = {**T5, "tie_word_embeddings": False}
    weights = dict(tiny("chronos-t5").state_dict())
    weights["lm_head.weight"] = weights["lm_head.weight"] + 1
    path, settings = tmp_path / "weights.pt", tmp_path / "config.json"
    torch.save(weights, path)
    settings.write_text(json.dumps(config))
    loaded = load_model(path, config=settings).model
    assert same(loaded, weights)
    # Independent reference: transformers' own loader.
    save_file({n: t.clone() for n, t in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    reference = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    again = load_model(save_checkpoint(loaded, tmp_path / "again.pt")).model
    ids = torch.arange(2, 12)[None]
    start = torch.zeros((1, 1), dtype=torch.int64)
    with torch.no_grad():
        wanted, *got = (m(input_ids=ids, decoder_input_ids=start).logits for m in (reference, loaded, again))
    for logits in got:
        torch.testing.assert_close(logits, wanted, rtol=1e-5, atol=1e-5)


def test_family_can_be_given(folders: dict[str, Path]) -> None:
    assert load_model(folders["chronos-bolt"], family="chronos-bolt").family == "chronos-bolt"
    fails(UsageError, "--family nope is not known", folders["chronos-bolt"], family="nope")


def test_missing_source(tmp_path: Path) -> None:
    fails(UsageError, "no such file or folder", tmp_path / "nothing")
    fails(UsageError, "no such file or folder", tmp_path / "nothing.pt")


@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_planned_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    fails(UnsupportedError, "not supported yet", tmp_path / name)


def test_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    fails(UsageError, "not a model", tmp_path / "notes.txt")


def test_folder_without_config(bolt: Path, tmp_path: Path) -> None:
    (bolt / "config.json").rename(tmp_path / "other.json")
    fails(UsageError, r"no config\.json", bolt)
    assert load_model(bolt, config=tmp_path / "other.json").family == "chronos-bolt"


def test_config_beside_its_own(bolt: Path) -> None:
    fails(UsageError, "leave --config out", bolt, config=bolt / "config.json")
    path = save_checkpoint(tiny("chronos-bolt"), bolt / "m.pt")
    fails(UsageError, "leave --config out", path, config=bolt / "config.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("\xff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_broken_config(bolt: Path, text: str, match: str) -> None:
    (bolt / "config.json").write_bytes(text.encode("latin-1"))
    fails(UsageError, match, bolt)


def test_huge_config(bolt: Path) -> None:
    with (bolt / "config.json").open("wb") as file:
        file.truncate(17 * 2**20)
    fails(UsageError, "larger than", bolt)


@pytest.mark.parametrize(
    "change", [{"architectures": ["BertModel"], "model_type": "bert"}, {"architectures": None}]
)
def test_unknown_family(bolt: Path, change: dict[str, Any]) -> None:
    config = {**BOLT, **change}
    (bolt / "config.json").write_text(json.dumps(config))
    fails(UnsupportedError, r"no supported family \(chronos-bolt", bolt)


@pytest.mark.parametrize(
    "change", [{"chronos_config": {}}, {"d_model": "wide"}, {"num_heads": 0}, {"chronos_config": None}]
)
def test_config_that_makes_no_sense(bolt: Path, change: dict[str, Any]) -> None:
    (bolt / "config.json").write_text(json.dumps({**BOLT, **change}))
    fails(TsmergeError, "config", bolt, family="chronos-bolt")


def test_remote_code_needs_trust(bolt: Path) -> None:
    (bolt / "config.json").write_text(json.dumps({**BOLT, "auto_map": {"AutoModel": "evil.Model"}}))
    fails(UsageError, "--trust-remote-code", bolt)
    assert load_model(bolt, trust_remote_code=True).family == "chronos-bolt"


def test_no_weights(bolt: Path) -> None:
    (bolt / "model.safetensors").unlink()
    fails(UsageError, r"no model\.safetensors", bolt)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1, -1000])
def test_truncated_safetensors(bolt: Path, keep: int) -> None:
    file = bolt / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    fails(UsageError, r"model\.safetensors: truncated", bolt)


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


class _Bomb:
    """Unpickling it would leave a mark."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("how", ["module", "pickle", "bomb", "bomb-zip", "list", "nested"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, mark = tmp_path / "model.pt", tmp_path / "mark"
    bomb = _Bomb()
    bomb.mark = mark
    if how == "module":
        torch.save(nn.Linear(2, 2), path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(nn.Linear(2, 2)))
    elif how == "bomb":
        path.write_bytes(pickle.dumps(bomb))
    elif how == "bomb-zip":
        torch.save({"a": torch.ones(1), "b": bomb}, path)
    elif how == "list":
        torch.save([torch.ones(2)], path)
    else:
        torch.save({"model": {"a": torch.ones(2)}}, path)
    fails(UsageError, r"tsmerge_export\.save_checkpoint\(model, path\)", path)
    assert not mark.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "model.pt")
    fails(UsageError, "TorchScript", tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80", b"PK\x03\x04"])
def test_garbage_pt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    fails(UsageError, r"model\.pt", tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [100, 1000, -1, -100])
def test_truncated_pt(tmp_path: Path, keep: int) -> None:
    path = save_checkpoint(tiny("chronos-bolt"), tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:keep])
    fails(UsageError, "truncated", path)


def test_checkpoint_of_a_later_version_or_without_config(tmp_path: Path) -> None:
    path = save_checkpoint(tiny("chronos-bolt"), tmp_path / "model.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format_version": 99}, path)
    fails(UsageError, "format 99 is not known", path)
    torch.save({**content, "config": None}, path)
    fails(UsageError, "has no config", path)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("amazon/chronos-bolt-tiny", True), ("./amazon/x", False), ("a/b/c", False), ("/abs/x", False), ("x", False),
     ("runs/model.pt", False), ("../x", False), ("a/..", False)],
)  # fmt: skip
def test_what_looks_like_a_hub_id(source: str, expected: bool) -> None:
    assert hub.is_hub_id(source) is expected


def test_hub_goes_through_the_folder_loader(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def snapshot_download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, allow_patterns))
        return str(folders["chronos-bolt"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = load_model("someone/some-model")
    assert same(loaded.model, tiny("chronos-bolt").state_dict())
    assert loaded.source == "someone/some-model"
    assert [hub_id for hub_id, _ in asked] == ["someone/some-model"]
    assert not any(pattern.endswith((".py", ".bin")) for pattern in asked[0][1])


def test_hub_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    fails(
        UsageError,
        "someone/some-model: no such local folder, and it cannot be downloaded",
        "someone/some-model",
    )


def test_hub_client_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(TsmergeError, match="huggingface_hub is not installed") as caught:
        load_model("someone/some-model")
    assert caught.value.exit_code == 4
