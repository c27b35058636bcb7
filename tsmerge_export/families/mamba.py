"""Mamba over binned values of a series: its recurrence as ONNX Scan, merging between blocks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from transformers import MambaConfig, MambaForCausalLM

from tsmerge_export.families.base import STEPS, Published
from tsmerge_export.families.state_space import StateSpaceFamily, binned_card


class ScanMixer(nn.Module):
    """``MambaMixer`` of transformers without a cache, its loop over tokens as one scan.

    Source: Mamba, arXiv 2312.00752, section 3.2, algorithm 2, with A diagonal::

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t        y_t = C_t h_t + D u_t

    A loop over tokens is unrolled by the exporter; torch's ``scan`` becomes ONNX Scan, of any length. A step computes
    its own ``exp(dt_t A)``: over all tokens at once that would be ``state_size`` times the memory of the tokens.
    """

    def __init__(self, mixer: Any) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, hidden_states: Tensor, **_ignored: Any) -> Tensor:
        """``[B, N, D]`` -> ``[B, N, D]``."""
        mixer = self.mixer
        u, gate = mixer.in_proj(hidden_states).transpose(1, 2).chunk(2, dim=1)
        # Padded on the left alone: cutting the end off would need the length.
        padded = F.pad(u, (mixer.conv_kernel_size - 1, 0))
        u = mixer.act(F.conv1d(padded, mixer.conv1d.weight, mixer.conv1d.bias, groups=padded.shape[1]))
        u = u.transpose(1, 2)
        sizes = [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size]
        step, b, c = mixer.x_proj(u).split(sizes, dim=-1)
        y = selective_scan(u, F.softplus(mixer.dt_proj(step)), -torch.exp(mixer.A_log.float()), b, c)
        y = (y + u * mixer.D) * F.silu(gate.transpose(1, 2))
        out: Tensor = mixer.out_proj(y)
        return out


def selective_scan(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``y_t = C_t h_t`` with ``h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t`` from ``h_0 = 0``.

    Args:
        u, dt: ``[B, N, I]`` float32. a: ``[I, S]``. b, c: ``[B, N, S]``.

    Returns:
        ``[B, N, I]``.
    """

    def step(h: Tensor, now: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        u, dt, b, c = now
        h = torch.exp(dt[..., None] * a) * h + (dt * u)[..., None] * b[:, None, :]
        return h.clone(), (h * c[:, None, :]).sum(-1)

    start = torch.zeros_like(u[:, 0, :, None] * a)
    _, y = scan(step, start, tuple(value.transpose(0, 1) for value in (u, dt, b, c)), dim=0)
    out: Tensor = y.transpose(0, 1)
    return out


def scan_mixers(backbone: Any) -> None:
    """Give every block of a ``MambaModel`` a :class:`ScanMixer`, in place."""
    for block in backbone.layers:
        block.mixer = ScanMixer(block.mixer)


class Mamba(StateSpaceFamily):
    """``MambaForCausalLM`` of transformers."""

    name = "mamba"
    default = STEPS
    model_class, config_class = MambaForCausalLM, MambaConfig
    card = binned_card("time steps, binned; the recurrence is ONNX Scan")
    published = Published(
        "state-spaces/mamba-130m, over 1,024 bins",
        {
            "architectures": ["MambaForCausalLM"], "model_type": "mamba", "vocab_size": 1024, "hidden_size": 768,
            "state_size": 16, "num_hidden_layers": 24, "series_config": {"context_length": 4096},
        },
    )  # fmt: skip

    def exportable(self, twin: Any) -> nn.Module:
        scan_mixers(twin.backbone)
        return twin
