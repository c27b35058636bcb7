"""What families of state-space models share: a language model over bins of a series, merging between blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsmerge_export.errors import UnsupportedError
from tsmerge_export.families.base import Arrays, Card, Component, Hints, MergePoints, TensorSpec
from tsmerge_export.families.hf import TransformersFamily, detached_twin
from tsmerge_export.families.objective import Batch, ByComponent, Objective, Predicted, Series
from tsmerge_export.merge.run import MergeRun

_QUANTILES = tuple(i / 10 for i in range(1, 10))
# Of ``series_config`` in config.json: the range of the bins in multiples of the mean absolute value.
_DEFAULTS = {"low_limit": -15.0, "high_limit": 15.0, "context_length": 512}


def _setting(model: Any, name: str) -> float:
    return float((getattr(model.config, "series_config", None) or {}).get(name, _DEFAULTS[name]))


def _centres(model: Any) -> NDArray[np.float64]:
    """The value that each token stands for, in multiples of the scale: ``vocab_size`` of them, evenly spaced."""
    return np.linspace(_setting(model, "low_limit"), _setting(model, "high_limit"), model.config.vocab_size)


def _bins(model: Any, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The tokens of scaled values, of the same shape."""
    centres = _centres(model)
    step = centres[1] - centres[0]
    ids: NDArray[np.int64] = np.rint((np.clip(values, centres[0], centres[-1]) - centres[0]) / step).astype(
        np.int64
    )
    return ids


def scaled(series: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Series ``[B, L]`` divided by their mean absolute value ``[B, 1]`` (1 where that is 0 or there is none).

    A missing value (NaN) is the last one seen, 0 before the first.
    """
    values = np.asarray(series, np.float64)
    seen = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(seen, np.arange(values.shape[1]), 0), axis=1)
    filled = np.nan_to_num(np.take_along_axis(values, last, axis=1), nan=0.0)
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    scale = np.abs(np.where(seen, values, 0)).sum(1, keepdims=True) / count
    scale = np.where(scale > 0, scale, 1.0)
    return filled / scale, scale


#: What every family that merges between blocks says of it.
BETWEEN = {
    "merging": "all, between blocks",
    "runtimes": ("ONNX Runtime",),
    "unsupported": ("`--metric key` and `--prop-attn`: they need attention", "other runtimes: not tried"),
}


def binned_card(tokens: str) -> Card:
    """The card of a language model over bins."""
    return Card((("model", "`input_ids` -> `logits` of every time step"),), tokens, **BETWEEN)  # type: ignore[arg-type]


def instrument_blocks(backbone: Any, run: MergeRun) -> list[RemovableHandle]:
    """Merge between the blocks of a backbone; give every original token its output behind the last norm.

    Args:
        backbone: ``MambaModel`` or ``Mamba2Model`` of transformers, or a module built alike: its forward takes
            ``attention_mask`` by name if at all, ``layers`` are blocks with a ``mixer`` in them, whose output is added
            to the block's input, ``norm_f`` is the last norm.

    Raises:
        UnsupportedError: proportional attention was asked for.
    """
    if run.prop_attn:
        raise UnsupportedError(
            "--prop-attn needs attention, and this state-space model has none; leave it out"
        )
    hidden: dict[int, Tensor] = {}

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask")
        run.begin(None if mask is None else (mask != 0).float())

    def align(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        mask = kwargs.get("attention_mask")
        return args, kwargs if mask is None else {**kwargs, "attention_mask": run.align(mask, 1)}

    def keep(layer: int) -> Any:
        return lambda _module, _args, output: hidden.__setitem__(layer, output)

    def merge(layer: int) -> Any:
        return lambda _module, _args, output: run.merge(layer, output, hidden=hidden.pop(layer))

    handles = [backbone.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer, block in enumerate(backbone.layers):
        handles.append(block.register_forward_pre_hook(align, with_kwargs=True))
        handles.append(block.mixer.register_forward_hook(keep(layer)))
        handles.append(block.register_forward_hook(merge(layer)))
    handles.append(backbone.norm_f.register_forward_hook(lambda _module, _args, output: run.unmerge(output)))
    return handles


def tokens_to_trace(config: Any, least: int) -> int:
    """A length that stands for all others where a config has chunks (Mamba-2): no less than ``least``.

    More than one chunk, because an exporter takes a size of 1 for a constant, and no whole number of them, because the
    padding of the last one would be left out.
    """
    chunk = getattr(config, "chunk_size", None)
    if chunk is None:
        return least
    tokens = max(least, 2 * int(chunk) + 1)
    return tokens if tokens % chunk else tokens + 1


class _ExportModule(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """``[B, L]`` int64 -> logits ``[B, L, V]``."""
        logits: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return logits


class BinnedModel(Component):
    """``input_ids [B, L]`` -> ``logits [B, L, V]`` of a language model of transformers over binned values."""

    name = "model"

    def __init__(self, model: Any, exportable: Callable[[nn.Module], nn.Module]) -> None:
        """``exportable`` makes a twin of the model, which it may change, fit for export."""
        self._exportable = exportable
        self.inputs = (TensorSpec("input_ids", "int64", ("batch", "length")),)
        # "length": one row of logits for every original token.
        self.outputs = (TensorSpec("logits", "float32", ("batch", "length", int(model.config.vocab_size))),)
        self.hints = Hints(protect_last=1)

    def module(self, model: Any) -> nn.Module:
        return _ExportModule(self._exportable(detached_twin(model)))

    def eager(self, model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": model(input_ids=inputs["input_ids"], use_cache=False).logits}

    def from_series(self, model: Any, series: NDArray[np.float32]) -> Arrays:
        values, _ = scaled(series[:, -int(_setting(model, "context_length")) :])
        return {"input_ids": _bins(model, values)}

    def to_trace(self, model: Any, batch: int, length: int) -> Arrays:
        """See :func:`tokens_to_trace`; also beyond the context that the series are cut to."""
        return {"input_ids": np.zeros((batch, tokens_to_trace(model.config, length)), np.int64)}


class _NextToken(ByComponent):
    """Logits of every token. The last one's alone foresee the future: what merged into a later token has seen the next.
    The others follow the teacher."""

    kind = "logits"

    def feed(
        self, model: Any, context: Series, future: Series
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
        """The label is the bin of the next step in the scale of the context."""
        inputs = self.component.from_series(model, context)
        _, scale = scaled(context[:, -int(_setting(model, "context_length")) :])
        labels = np.full(inputs["input_ids"].shape, -100, np.int64)
        labels[:, -1:] = np.where(
            np.isnan(future), -100, _bins(model, np.nan_to_num(future.astype(np.float64)) / scale)
        )
        return inputs, labels

    def outputs(self, model: nn.Module, batch: Batch) -> Predicted:
        logits = self.component.eager(model, batch.inputs)["logits"]
        return Predicted(self.kind, {"logits": logits}, batch.unit)


class StateSpaceFamily(TransformersFamily):
    """Language models of transformers, ``model.backbone`` and ``model.lm_head``, each token a bin of the scaled series;
    they forecast one step. A family names its classes and, where export needs it, its exportable form."""

    def exportable(self, twin: nn.Module) -> nn.Module:
        """A twin of the model, made fit for export in place."""
        return twin

    def components(self, model: Any) -> tuple[Component, ...]:
        return (BinnedModel(model, self.exportable),)

    def merge_points(self, model: Any) -> MergePoints:
        # The last token gives the forecast: it is neither dropped nor mixed.
        return MergePoints(len(model.backbone.layers), protect_last=1)

    def instrument(self, model: Any, run: MergeRun) -> list[RemovableHandle]:
        return instrument_blocks(model.backbone, run)

    def horizon(self, model: Any) -> int:
        return 1

    def objective(self, model: Any) -> Objective:
        return _NextToken(self.components(model)[0], self.horizon(model))

    def context(self, model: Any) -> int:
        return int(_setting(model, "context_length"))

    def quantile_levels(self, model: Any) -> tuple[float, ...]:
        return _QUANTILES

    def forecast(
        self, model: Any, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        _, scale = scaled(series[:, -self.context(model) :])
        inputs = self.components(model)[0].from_series(model, series)
        logits = run(inputs)["logits"][:, -1].astype(np.float64)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        share = weights.cumsum(-1) / weights.sum(-1, keepdims=True)
        bins = np.stack([(share >= level).argmax(-1) for level in _QUANTILES], 1)
        return (_centres(model)[bins] * scale)[..., None].astype(np.float32)
