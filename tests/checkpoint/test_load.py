"""Loading and saving of model files, from folders, files and the hub; a bad source is one clear error."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import T5ForConditionalGeneration

from tests.checkpoint.helpers import fails, same
from tests.files.hub import hub_cache
from tests.models import BOLT, T5, tiny, tiny_folder
from tests.report.distillation import written
from tsmerge_export.checkpoint import hub, load_model, save_checkpoint
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError


@pytest.mark.parametrize("family", ["chronos-bolt", "chronos-t5"])
def test_folder_gives_the_saved_weights(folders: dict[str, Path], family: str) -> None:
    loaded = load_model(folders[family])
    assert loaded.family == family
    assert loaded.source == str(folders[family])
    assert same(loaded.model, tiny(family).state_dict())
    assert not loaded.model.training
    assert all(not module.training for module in loaded.model.modules())


def test_folder_in_the_cache_of_the_hub(bolt: Path, tmp_path: Path) -> None:
    files = {path.name: path for path in bolt.iterdir()}
    assert same(load_model(hub_cache(files, tmp_path / "hub")).model, tiny("chronos-bolt").state_dict())


def test_what_transformers_thinks_of_a_config_is_not_shown(
    bolt: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    config = json.loads((bolt / "config.json").read_text())
    (bolt / "config.json").write_text(json.dumps({**config, "eos_token_id": 5}))  # of a vocabulary of two
    assert same(load_model(bolt).model, tiny("chronos-bolt").state_dict())
    assert not caplog.records
    config["chronos_config"]["quantiles"] = []  # torch warns of weights without an element
    (bolt / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match="the config says"):
            load_model(bolt)


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
def test_graphs_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    fails(UnsupportedError, "only tsmerge-export and tsmerge validate take", tmp_path / name)
    fails(UsageError, "no such file", tmp_path / f"other-{name}")


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
    fails(UnsupportedError, rf"{bolt}.*no supported family \(.*chronos-bolt.*--family.*\.onnx", bolt)


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


def test_how_weights_were_distilled_is_read_from_beside_them(bolt: Path) -> None:
    assert load_model(bolt).distillation is None
    record = bolt / "distillation.json"
    record.write_text(json.dumps({**written(), "more": "of a later version"}))
    found = load_model(bolt).distillation
    assert found is not None
    assert found["history"]["best_step"] == 100 and "more" not in found and "speeds" not in found
    # Of another format it is nobody's business; a broken one of ours is one line.
    record.write_text('{"format": "theirs", "scores": 3}')
    assert load_model(bolt).distillation is None
    for wrong, words in (
        ({"format_version": 2}, "distillation format 2"),
        ({"scores": 3}, "scores is 3, expected a list"),
        ({"trained": {"merge": {"method": "local", "ratio": "7/8"}}}, "out of range"),
        ({"recipe": {"max_increase": float("nan")}}, "recipe.max_increase is nan"),
    ):
        record.write_text(json.dumps({**written(), **wrong}))
        fails(UsageError, words, bolt)
        fails(UsageError, "distillation.json: ", bolt)
