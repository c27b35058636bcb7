"""Attention by torch's own function."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F


def attention(module: Any, x: Tensor) -> Tensor:
    """Multi-head attention by torch's own function, from the layer's weights."""
    heads = [
        F.linear(x, p.weight, p.bias).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
        for p in (module.q_proj, module.k_proj, module.v_proj)
    ]
    mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    return F.linear(mixed, module.out_proj.weight, module.out_proj.bias)
