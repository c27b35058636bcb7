"""The eager model cast to half as the files are: weights and products rounded, everything between them float32."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tsmerge_export.merge.run import MergeRun

#: Types by kind of precision.
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MATMUL: frozenset[Callable[..., Any]] = frozenset(
    {torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__}
)


class Cast(TorchFunctionMode):
    """While it is entered, products compute as a unit for half does: operands rounded, summed in float32, the result
    rounded; the bias is added in float32.

    Which weights are rounded is known by what is in them, so that names of modules and of nodes need not agree.

    Args:
        kind: ``fp16`` or ``bf16``.
        weights: those that are rounded, as the file has them, and whether their products are in half too.
        attention: whether products of two values are.
    """

    def __init__(
        self, kind: str, weights: Iterable[tuple[npt.NDArray[np.float32], bool]], *, attention: bool
    ) -> None:
        super().__init__()
        self._type, self._attention, self._off = TYPES[kind], attention, False
        self._weights = {digest_of(torch.from_numpy(np.array(value))): low for value, low in weights}
        self._known: dict[tuple[Any, ...], bool | None] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._off:
            return func(*args, **kwargs)
        if func is functional.linear:
            return self._linear(*args, **kwargs)
        if func is functional.embedding:
            return self._embedding(*args, **kwargs)
        if func in _MATMUL and len(args) == 2:
            return self._matmul(*args)
        if func is functional.scaled_dot_product_attention and self._attention:
            return self._sdpa(*args, **kwargs)
        return func(*args, **kwargs)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside the block nothing is rounded."""
        before, self._off = self._off, True
        try:
            yield
        finally:
            self._off = before

    def leave_out(self, run: MergeRun) -> None:
        """Let merging compute in float32, as the nodes of a file do."""
        plain = run.merge

        def merge(*args: Any, **kwargs: Any) -> Tensor:
            with self.off():
                return plain(*args, **kwargs)

        run.merge = merge  # type: ignore[method-assign]

    def _round(self, value: Tensor) -> Tensor:
        return value.to(self._type).to(value.dtype)

    def _low(self, weight: Tensor) -> bool | None:
        """Whether the product with a weight is in half; None where the weight itself is not."""
        if weight.dim() != 2:
            return None
        key = (weight.data_ptr(), tuple(weight.shape), weight.stride())
        if key not in self._known:
            self._known[key] = self._weights.get(digest_of(weight))
        return self._known[key]

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        low = self._low(weight.t())
        if low is None:
            return functional.linear(input, weight, bias)
        if not low:
            return functional.linear(input, self._round(weight), bias)
        made = self._round(functional.linear(self._round(input), self._round(weight)))
        return made if bias is None else made + bias

    def _embedding(self, input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rounded = weight if self._low(weight) is None else self._round(weight)
        return functional.embedding(input, rounded, *args, **kwargs)

    def _matmul(self, a: Tensor, b: Tensor) -> Tensor:
        low = self._low(b)
        if low is False:
            return torch.matmul(a, self._round(b))
        # With one number in a row nothing is summed: positions times frequencies.
        if low or (self._attention and a.is_floating_point() and a.shape[-1] > 1):
            return self._round(torch.matmul(self._round(a), self._round(b)))
        return torch.matmul(a, b)

    def _sdpa(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """As torch documents it, with two products; without dropout."""
        if enable_gqa:
            key, value = (
                each.repeat_interleave(query.shape[-3] // each.shape[-3], dim=-3) for each in (key, value)
            )
        factor = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        scores = self._matmul(query * factor, (key * factor).transpose(-2, -1))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, -math.inf)
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        return self._matmul(scores.softmax(-1), value)


def unknown(model: nn.Module, weights: Iterable[tuple[npt.NDArray[np.float32], bool]]) -> int:
    """How many weights of a file are none of the module's, which then computes with unrounded ones."""
    own = set()
    for value in (*model.parameters(), *model.buffers()):
        if value.dim() == 2:
            own |= {digest_of(value), digest_of(value.t())}
    return sum(digest_of(torch.from_numpy(np.array(value))) not in own for value, _ in weights)


def digest_of(weight: Tensor) -> bytes:
    """SHA-256 of shape and content: two weights that have it are the same, whatever they are called."""
    content = weight.detach().contiguous().numpy()
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).digest()
