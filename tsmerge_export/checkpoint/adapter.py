"""LoRA adapters as peft writes them (``adapter_config.json``, ``adapter_model.safetensors``), merged into their base.

Merged by hand: two small products per weight need no peft, and nothing in an adapter's folder is run or unpickled.
Source: arXiv 2106.09685, section 4.1: W + (alpha / r) B A; scaled by alpha / sqrt(r) as arXiv 2312.03732 has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.checkpoint.config_file import read_json_object
from tsmerge_export.checkpoint.safetensors_file import read_safetensors
from tsmerge_export.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_MATRIX = re.compile(r"(.+)\.lora_([AB])\.weight")
#: What another kind of adapter than plain LoRA on linear layers has in its config.
_OTHERS = (
    "use_dora",
    "use_qalora",
    "fan_in_fan_out",
    "layer_replication",
    "megatron_config",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
)
#: Ways to begin that leave the base's weights as they are; the others put a part of them into the matrices.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")
_LONGEST_BASE, _LONGEST_MODULE, _LONGEST_KEY = 1024, 300, 200
#: Keys of patterns are regular expressions: these parts of them cannot take forever, with few choices among them.
_PARTS = re.compile(r"(?:(?:[\w.-]|\\[.\-dw]|\[[\w-]+\])[*+?]?|[\^$|(]|\)(?![*+?{]))*", re.ASCII)
_MOST_CHOICES = 16


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        folder: where it lies. base: path or hub id of the model that it was trained on.
        r, alpha: rank and scale; ``ranks`` and ``alphas``: of modules whose names match a regular expression, others.
        rooted: whether the scale is alpha / sqrt(r).
    """

    folder: Path
    base: str
    r: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rooted: bool

    @property
    def label(self) -> str:
        """What messages begin with."""
        return str(self.folder / CONFIG)


def read_adapter(folder: Path) -> Adapter:
    """What ``adapter_config.json`` says.

    Raises:
        UsageError: unreadable, or without base or ranks.
        UnsupportedError: another kind of adapter, or patterns that may take too long.
    """
    file = folder / CONFIG
    config = read_json_object(file)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedError(f"{file}: peft_type is {kind!r}; only LORA adapters are merged")
    for name in _OTHERS:
        if config.get(name):
            raise UnsupportedError(f"{file}: {name} is set; only plain LoRA of linear layers is merged")
    begun = config.get("init_lora_weights")
    if begun not in _BEGINNINGS:
        raise UnsupportedError(
            f"{file}: init_lora_weights is {str(begun)[:40]!r}, which changes the base's own weights; convert it to "
            "plain LoRA with peft"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base or len(base) > _LONGEST_BASE:
        raise UsageError(f"{file}: base_model_name_or_path names no model; add it")
    ranks, alphas = (config.get(name) or {} for name in ("rank_pattern", "alpha_pattern"))
    numbers = [("r", config.get("r")), ("lora_alpha", config.get("lora_alpha"))]
    for pattern, name in ((ranks, "rank_pattern"), (alphas, "alpha_pattern")):
        if not isinstance(pattern, dict):
            raise UsageError(f"{file}: {name} must be an object")
        for key in pattern:
            _check_key(key, f"{file}: {name} {key[:_LONGEST_KEY]!r}")
        numbers += [(f"{name} {key!r}", value) for key, value in pattern.items()]
    for name, value in numbers:
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e6:
            raise UsageError(f"{file}: {name} is {value!r}, not a number above 0")
    return Adapter(
        folder, base, config["r"], config["lora_alpha"], ranks, alphas, bool(config.get("use_rslora"))
    )


def _check_key(key: str, label: str) -> None:
    """UsageError for a key that is no regular expression, UnsupportedError for one that may take too long."""
    choices = 5 * sum(map(key.count, "*+")) + sum(map(key.count, "?|"))
    if len(key) > _LONGEST_KEY or choices > _MOST_CHOICES or not _PARTS.fullmatch(key):
        raise UnsupportedError(
            f"{label} is too intricate a regular expression; names, dots, [..], (a|b), \\d and a few * + ? are read"
        )
    try:
        re.compile(key)
    except re.error as error:
        raise UsageError(f"{label} is no regular expression: {error.msg}") from None


def merged(adapter: Adapter, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The base's weights with the adapter's products added, in float32 where it has any.

    Raises:
        UsageError: files that are missing or corrupt, matrices without a partner, of other shapes, of weights that
            the base does not have, or whose product is not finite.
    """
    file = adapter.folder / WEIGHTS
    pairs: dict[str, dict[str, Tensor]] = {}
    out = dict(weights)
    for name, tensor in read_safetensors(file).items():
        own = name.removeprefix(_PREFIX)
        found = _MATRIX.fullmatch(own)
        if found is not None:
            pairs.setdefault(found[1], {})[found[2]] = tensor
        elif own in weights:  # a module that was trained whole, or a bias
            out[own] = tensor
        else:
            raise UsageError(f"{file}: {name} is no weight of {adapter.base}, nor a LoRA matrix")
    if not pairs:
        raise UsageError(f"{file}: holds no LoRA matrix; it is no LoRA adapter")
    for module, pair in pairs.items():
        name = f"{module}.weight"
        if len(pair) < 2:
            raise UsageError(f"{file}: {module} has lora_{min(pair)} alone; it is incomplete")
        if name not in weights or len(module) > _LONGEST_MODULE:
            raise UsageError(
                f"{file}: {module[:_LONGEST_MODULE]} is no module of {adapter.base}; give the base it was trained on"
            )
        down, up = pair["A"].float(), pair["B"].float()
        r = _of_module(module, adapter.ranks, adapter.r)
        shapes = [list(each.shape) for each in (down, up, weights[name])]
        if shapes != [[r, weights[name].shape[-1]], [weights[name].shape[0], r], shapes[2]]:
            raise UsageError(
                f"{file}: {module} has matrices {shapes[0]} and {shapes[1]}, which do not fit a weight {shapes[2]} at "
                f"rank {r}"
            )
        scale = _of_module(module, adapter.alphas, adapter.alpha) / (math.sqrt(r) if adapter.rooted else r)
        out[name] = out[name].float() + scale * (up @ down)
        if not out[name].isfinite().all():
            raise UsageError(
                f"{file}: {module} merged into its base is not finite in float32; its matrices are broken"
            )
    return out


def _of_module(module: str, patterns: Mapping[str, Any], usual: Any) -> Any:
    """What the first pattern that matches the end of the module's name from a dot on says, as peft has it."""
    found = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, usual)
