"""Helpers for families whose modules come from Hugging Face transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.base import Family


def from_config(
    model_class: type, config_class: type, config: Mapping[str, Any], needs: tuple[str, ...] = ()
) -> nn.Module:
    """Build ``model_class`` with random weights from a config.json's dict.

    Raises:
        UsageError: a key in ``needs`` is missing, or the class refuses the config.
    """
    missing = [key for key in needs if key not in config]
    if missing:
        raise UsageError(f"config.json has no {missing[0]!r}; it is not a {model_class.__name__}")
    try:
        return model_class(config_class.from_dict(dict(config))).eval()  # type: ignore[attr-defined]
    except Exception as error:  # only the config decides what happens here, and it is the user's
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"config.json does not describe a {model_class.__name__}: {reason}") from error


def config_dict(model: nn.Module, architecture: str) -> dict[str, Any]:
    """The model's config as config.json would hold it, with ``architectures`` set."""
    config: dict[str, Any] = model.config.to_dict()  # type: ignore[union-attr, operator]
    config["architectures"] = [architecture]
    if config.get("scale_decoder_outputs") is False:
        # T5Config overwrites its own field when it is read back, by whether this one is False.
        config["tie_word_embeddings"] = False
    return config


def detached_twin(model: nn.Module, *, share: bool = True) -> nn.Module:
    """A copy of the model that has none of its hooks, and with ``share`` its very weights."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())} if share else {}
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        # Merging may be applied to the original; the exported graph gets its merges from the rewriter.
        module.__dict__.pop("forward", None)
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            hooks.clear()
    return twin.eval()


def eager_attention(model: nn.Module) -> nn.Module:
    """A :func:`detached_twin` that computes attention as plain matmul and softmax.

    The exporter cannot decompose every form of ``scaled_dot_product_attention``; the original stays as it is.
    """
    twin = detached_twin(model)
    twin.set_attn_implementation("eager")  # type: ignore[operator]
    return twin


class LastAxis(nn.Module):
    """A distribution's map into its domain, which squeezes the last axis: given one of length 1 to squeeze.

    Without, it means "squeeze if that is 1", which the exporter writes as a Squeeze of whatever length there is.
    """

    def __init__(self, domain_map: nn.Module) -> None:
        super().__init__()
        self.domain_map = domain_map

    def forward(self, *parameters: Tensor) -> Any:
        """Parameters ``[.., H]``, unbounded -> the same in their domain."""
        return self.domain_map(*(parameter.unsqueeze(-1) for parameter in parameters))


class ReplacedForward:
    """Another forward for one module, for a layer whose residual stream passes no boundary that a hook could sit on.

    It calls the layer's own submodules. A :class:`~tsmerge_export.families.base.Handle`; where it was replaced in turn,
    :meth:`remove` leaves the later one alone.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self._module, self._forward = module, forward
        module.forward = forward

    def remove(self) -> None:
        """Give the module its own forward back."""
        if self._module.__dict__.get("forward") is self._forward:
            del self._module.__dict__["forward"]


class TransformersFamily(Family):
    """A family whose module is one class of transformers, or one that follows its conventions.

    Attributes:
        model_class: named in ``architectures`` of config.json. config_class: its configuration.
        needs: keys that config.json must have.
    """

    model_class: type
    config_class: type
    needs: tuple[str, ...] = ()

    def matches(self, config: Mapping[str, Any]) -> bool:
        """See :meth:`Family.matches`."""
        return self.model_class.__name__ in (config.get("architectures") or ())

    def another_head(self, config: Mapping[str, Any]) -> str | None:
        """See :meth:`Family.another_head`."""
        taken = self.model_class.__name__
        stem = taken.partition("For")[0]
        named = (config.get("architectures") or [""])[0]
        if not isinstance(named, str) or named == taken or stem == taken:
            return None
        if any(key not in config for key in self.needs):
            return None
        bare = named.removesuffix("Model") == stem.removesuffix("Model")
        if not bare and not named.startswith(f"{stem}For"):
            return None
        return (
            f"config.json describes {named}; of these models the family {self.name} takes {taken} alone, with the "
            "head that forecasts. Export this one to .onnx with torch.onnx.export, and give that file"
        )

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """See :meth:`Family.build`."""
        reason = self.another_head(config)
        if reason is not None:  # asked for by name: its weights would not fit
            raise UnsupportedError(reason)
        return from_config(self.model_class, self.config_class, config, needs=self.needs)

    def config_of(self, model: nn.Module) -> dict[str, Any]:
        """See :meth:`Family.config_of`."""
        return config_dict(model, self.model_class.__name__)
