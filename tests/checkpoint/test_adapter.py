"""LoRA adapters are merged into their base: against the base that adds them as it runs. Anything else is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.checkpoint.helpers import fails, same
from tests.models import tiny, tiny_folder
from tsmerge_export import checkpoint
from tsmerge_export.checkpoint import load_model
from tsmerge_export.errors import UnsupportedError, UsageError

#: Names as peft's default for Chronos-2 has them.
MODULES = [
    "encoder.block.0.layer.0.self_attention.q",
    "encoder.block.1.layer.1.self_attention.o",
    "output_patch_embedding.output_layer",
]
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q", "o"], "bias": "none"}


def matrices(rank: int = 2) -> dict[str, Tensor]:
    """``lora_A`` and ``lora_B`` of each module, by peft's names."""
    model, generator = tiny("chronos-2"), torch.Generator().manual_seed(1)
    out = {}
    for name in MODULES:
        wide = model.get_submodule(name)
        for letter, shape in (("A", (rank, wide.in_features)), ("B", (wide.out_features, rank))):
            out[f"base_model.model.{name}.lora_{letter}.weight"] = torch.randn(shape, generator=generator)
    return out


def adapter(folder: Path, weights: dict[str, Tensor] | None = None, **change: Any) -> Path:
    """A folder as ``save_pretrained`` of peft writes it, beside its base."""
    base = tiny_folder(folder / "base", "chronos-2")
    out = folder / "adapter"
    out.mkdir()
    (out / "adapter_config.json").write_text(
        json.dumps({**CONFIG, "base_model_name_or_path": str(base), **change})
    )
    save_file(matrices() if weights is None else weights, out / "adapter_model.safetensors")
    return out


def running(scale: float, weights: dict[str, Tensor]) -> nn.Module:
    """The base, whose modules add what their matrices make of their input."""
    model = tiny("chronos-2")
    for name in MODULES:
        down, up = (weights[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
        model.get_submodule(name).register_forward_hook(
            lambda _module, args, output, down=down, up=up: output + scale * (args[0] @ down.T @ up.T)
        )
    return model


def quantiles(model: Any) -> Tensor:
    series = torch.randn(2, 70, generator=torch.Generator().manual_seed(0)).cumsum(1)
    with torch.no_grad():
        out: Tensor = model(context=series, group_ids=torch.zeros(2), num_output_patches=2).quantile_preds
    return out


@pytest.mark.parametrize(
    ("change", "rank", "scale"),
    [
        ({}, 2, 1.5),
        ({"use_rslora": True}, 2, 3 / 2**0.5),
        ({"r": 8, "rank_pattern": {"q": 4, "o": 4, "output_layer": 4}}, 4, 3 / 4),
        ({"alpha_pattern": {"self_attention.q": 1, "o": 1, "output_layer": 1}}, 2, 1 / 2),
        ({"alpha_pattern": {r"encoder\.block\.[01]\..*": 1, "out.+_(layer|x)": 1, "q": 9}}, 2, 1 / 2),
        ({"alpha_pattern": {"^q": 9, "attention": 9, "^output_layer": 9}}, 2, 1.5),
    ],
    ids=["plain", "rslora", "ranks", "alphas", "expressions", "expressions of none"],
)
def test_an_adapter_is_merged_into_its_base(
    change: dict[str, Any], rank: int, scale: float, tmp_path: Path
) -> None:
    weights = matrices(rank)
    loaded = load_model(adapter(tmp_path, weights, **change))
    assert loaded.family == "chronos-2"
    want, base = quantiles(running(scale, weights)), quantiles(tiny("chronos-2"))
    torch.testing.assert_close(quantiles(loaded.model), want, rtol=1e-4, atol=1e-4)
    assert (want - base).abs().max() > 0.1


def test_a_module_that_was_trained_whole_replaces_the_bases(tmp_path: Path) -> None:
    own = torch.full_like(tiny("chronos-2").state_dict()["shared.weight"], 0.25)
    loaded = load_model(adapter(tmp_path, {**matrices(), "base_model.model.shared.weight": own}))
    assert torch.equal(loaded.model.state_dict()["shared.weight"], own)


def test_an_adapter_whose_base_is_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path)
    local = load_model(folder).model
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "org/base"}))
    monkeypatch.setattr(checkpoint, "download", {"org/base": tmp_path / "base"}.__getitem__)
    assert same(load_model(folder).model, local.state_dict())


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        ({"peft_type": "IA3"}, UnsupportedError, "peft_type is 'IA3'; only LORA adapters"),
        ({"use_dora": True}, UnsupportedError, "use_dora is set; only plain LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, UnsupportedError, "init_lora_weights is 'pissa_niter_4'"),
        ({"alora_invocation_tokens": [1]}, UnsupportedError, "alora_invocation_tokens is set"),
        ({"target_parameters": ["a.b"]}, UnsupportedError, "target_parameters is set"),
        ({"alpha_pattern": {"(q": 1}}, UsageError, r"alpha_pattern '\(q' is no regular expression"),
        ({"rank_pattern": {"(a+)+": 1}}, UnsupportedError, r"rank_pattern '\(a\+\)\+' is too intricate"),
        ({"rank_pattern": {"(a|a)" * 30: 1}}, UnsupportedError, "is too intricate a regular expression"),
        ({"rank_pattern": {".*.*.*.*x": 1}}, UnsupportedError, "is too intricate a regular expression"),
        ({"base_model_name_or_path": "x" * 5000}, UsageError, "adapter_config.json: base_model_name.{,99}$"),
        ({"base_model_name_or_path": "x" * 300}, UsageError, "adapter_config.json: its base 'x"),
        ({"base_model_name_or_path": None}, UsageError, "base_model_name_or_path names no model"),
        ({"base_model_name_or_path": "/nowhere/at all"}, UsageError, "is no folder here and no hub id"),
        ({"base_model_name_or_path": "."}, UsageError, "its base '.' holds no config.json"),
        ({"r": 0}, UsageError, "r is 0, not a number above 0"),
        ({"lora_alpha": "3"}, UsageError, "lora_alpha is '3', not a number"),
        ({"rank_pattern": [1]}, UsageError, "rank_pattern must be an object"),
        ({"alpha_pattern": {"q": None}}, UsageError, "alpha_pattern 'q' is None"),
        (
            {"r": 3},
            UsageError,
            r"has matrices \[2, 16\] and \[16, 2\], which do not fit a weight \[16, 16\] at rank 3",
        ),
    ],
)
def test_adapters_that_cannot_be_merged_are_one_line(
    change: dict[str, Any], kind: Any, match: str, tmp_path: Path
) -> None:
    fails(kind, match, adapter(tmp_path, **change))


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    file = folder / "adapter_model.safetensors"
    first = f"base_model.model.{MODULES[0]}.lora_A.weight"
    for weights, match in (
        ({first: matrices()[first]}, "has lora_A alone; it is incomplete"),
        ({first.replace("block.0", "block.7"): torch.ones(2, 16)}, "block.7.* has lora_A alone"),
        ({**matrices(), "extra": torch.ones(1)}, "extra is no weight of "),
        ({"base_model.model.shared.weight": torch.ones(2, 16)}, "holds no LoRA matrix"),
        (
            {name.replace("block.0", "block.7"): value for name, value in matrices().items()},
            r"block\.7\..* is no module of ",
        ),
    ):
        save_file(weights, file)
        fails(UsageError, match, folder)
    save_file({name: value * 1e30 for name, value in matrices().items()}, file)
    fails(UsageError, f"{MODULES[0]} merged into its base is not finite", folder)
    file.write_bytes(file.read_bytes()[:-9])
    fails(UsageError, "adapter_model.safetensors: truncated or corrupt", folder)
    file.unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")  # pickles are not even opened
    fails(UsageError, "adapter_model.safetensors: no such file", folder)
    (folder / "adapter_config.json").write_text("{")
    fails(UsageError, "adapter_config.json: not valid JSON", folder)


def test_a_folder_of_a_model_and_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "config.json").write_text((tmp_path / "base" / "config.json").read_text())
    fails(UsageError, "holds adapter_config.json beside a model's config", folder)
