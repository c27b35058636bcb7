"""A plan: which method runs at which merge point, with which attributes. Families and the rewriter see only this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tsmerge_export.config import MergeConfig
from tsmerge_export.errors import UsageError
from tsmerge_export.merge.local import LocalMethod, Merged


class Method(Protocol):
    """A merging method: one reference file that implements this, and one operator file of the same op type."""

    name: str
    op_type: str

    def attributes(self, config: MergeConfig, protect_first: int, protect_last: int) -> dict[str, int]: ...

    def removed(self, tokens: int, attributes: Mapping[str, int]) -> int: ...

    def merge(self, x: Tensor, size: Tensor | None, attributes: Mapping[str, int]) -> Merged: ...

    def ranks(
        self, x: Tensor, size: Tensor | None, attributes: Mapping[str, int]
    ) -> tuple[Tensor, Tensor]: ...


METHODS: dict[str, Method] = {method.name: method for method in (LocalMethod(),)}


@dataclass(frozen=True)
class MergeStep:
    """One merge at one point of a model."""

    layer: int
    method: Method
    attributes: Mapping[str, int]

    @property
    def op_type(self) -> str:
        """Operator type in the ONNX domain ``tsmerge``."""
        return self.method.op_type

    def removed(self, tokens: int) -> int:
        """Tokens removed of ``tokens``."""
        return self.method.removed(tokens, self.attributes)

    def __call__(self, x: Tensor, size: Tensor | None) -> Merged:
        """Merge ``x [B, N, D]`` with ``size [B, N]`` float32 (None: all 1)."""
        return self.method.merge(x, size, self.attributes)


def make_plan(
    config: MergeConfig, points: int, *, protect_first: int = 0, protect_last: int = 0
) -> dict[int, MergeStep]:
    """Steps by layer index, for a model with ``points`` merge points.

    Raises:
        UsageError: the config names a layer that is not there, or an unknown method.
    """
    layers = config.select_layers(points)
    if not layers:
        return {}
    if config.method not in METHODS:
        raise UsageError(
            f"--merge {config.method} is not a known method; choose one of: none, {', '.join(METHODS)}"
        )
    method = METHODS[config.method]
    attributes = method.attributes(config, protect_first, protect_last)
    return {layer: MergeStep(layer, method, attributes) for layer in layers}
