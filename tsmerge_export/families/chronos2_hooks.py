"""Merging in an eager Chronos-2 encoder: the batch of series goes to the merge as a batch of groups, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from chronos.chronos2.layers import AttentionOutput, Chronos2RotaryEmbedding
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tsmerge_export.merge.run import MergeRun


@dataclass(frozen=True)
class _Groups:
    """Which rows of a flat batch ``[R, ...]`` belong together.

    Attributes:
        of: ``[R]`` int64, the group of each row. place: ``[R]`` int64, its index in the group.
        count: groups G. largest: rows V of the largest one; smaller ones are filled up with zeros.
    """

    of: Tensor
    place: Tensor
    count: int
    largest: int

    @classmethod
    def from_ids(cls, ids: Tensor) -> _Groups:
        """From ``[R]`` group ids: the groups in order of their ids, rows in their own order."""
        _, of = torch.unique(ids, return_inverse=True)
        same = of[:, None] == of[None, :]
        place = same.tril(-1).sum(1)
        return cls(of, place, int(of.max()) + 1, int(place.max()) + 1)

    def gather(self, rows: Tensor) -> Tensor:
        """``[R, ...]`` -> ``[G, V, ...]``."""
        out = rows.new_zeros(self.count, self.largest, *rows.shape[1:])
        out[self.of, self.place] = rows
        return out

    def joined(self, rows: Tensor) -> Tensor:
        """Tokens ``[R, N, D]`` -> ``[G, N, V * D]``."""
        return self.gather(rows).transpose(1, 2).flatten(2)

    def parted(self, groups: Tensor) -> Tensor:
        """``[G, N, V * D]`` -> ``[R, N, D]``."""
        return groups.unflatten(2, (self.largest, -1)).transpose(1, 2)[self.of, self.place]


class _Follower:
    """The hooks of one model. Masks are kept as the original made them and aligned anew for each layer.

    The run sees the patches of the context alone; REG and the horizon's tokens stand apart, behind them (R13.9).
    """

    def __init__(self, run: MergeRun) -> None:
        self.run = run
        self.groups: _Groups
        self.horizon = 0  # patches
        self.context = 0  # patches
        self.real: Tensor  # [G, N]: 1 where any series of the group has the token
        self.key: Tensor
        self.rope: tuple[Tensor, Tensor]

    def kept(self) -> Tensor | None:
        """``[R, M]`` int64: the surviving tokens of each row."""
        kept = self.run.kept
        if kept is None:
            return None
        behind = torch.arange(self.context, self.context + 1 + self.horizon, device=kept.device)
        return torch.cat([kept, behind.expand(len(kept), -1)], 1)[self.groups.of]

    def embedded(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        """The context's patches are embedded first, then those of the horizon, which are noted."""
        self.horizon = output.shape[1]

    def begin(self, _module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs["attention_mask"]
        self.groups = _Groups.from_ids(kwargs["group_ids"])
        self.real = self.groups.gather((mask != 0).float()).amax(1)
        self.context = self.real.shape[1] - 1 - self.horizon
        self.run.begin(self.real[:, : self.context])

    def align_time(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = self.kept()
        if kept is None:
            return None
        positions = self.positions(kwargs["position_ids"])
        mask = torch.take_along_dim(kwargs["attention_mask"], kept[:, None, None, :], dim=3)
        proportion = self.run.proportion(self.groups.count)
        if proportion is not None:
            mask = mask + nn.functional.pad(proportion, (0, 1 + self.horizon))[self.groups.of]
        if (
            len(positions) > 1
        ):  # as they are the same for all rows until they are gathered, there is one row of them
            positions = positions[self.groups.of]
        return args, {**kwargs, "position_ids": positions, "attention_mask": mask}

    def positions(self, positions: Tensor) -> Tensor:
        """``[1, N]`` -> those of the surviving tokens, ``[1 or G, M]``."""
        front = self.run.align(positions[:, : self.context], 1, positional=True)
        # Compact positions go on where those of the context end.
        start = front.shape[1] if self.run.compact else self.context
        behind = positions[:, start : start + 1 + self.horizon]
        return torch.cat([front, behind.expand(len(front), -1)], 1)

    def align_group(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``[N, 1, R, R]`` by the tokens that the row attended to has left: where the groups differ it masks anyway."""
        kept = self.kept()
        if kept is None:
            return None
        mask = torch.take_along_dim(kwargs["attention_mask"], kept.T[:, None, None, :], dim=0)
        return args, {**kwargs, "attention_mask": mask}

    def keep_out_padding(self, _module: nn.Module, args: tuple[Any, ...], output: AttentionOutput) -> Any:
        """The padding of a whole group masks every row, so the original attends to the whole batch alike. Nothing reads
        those tokens, but merging compares them; they stay as they are, so that no group depends on its neighbours."""
        front = self.run.align(self.real[:, : self.context], 1)
        real = torch.cat([front, self.real[:, self.context :]], 1)[self.groups.of]
        hidden = torch.where(real[..., None] > 0, output[0], args[0])
        return AttentionOutput(hidden_states=hidden, attn_weights=output.attn_weights)

    def keep_key(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self.key = output

    def keep_rope(self, _module: nn.Module, _args: Any, output: tuple[Tensor, Tensor]) -> None:
        self.rope = output

    def keys(self, heads: int) -> Tensor:
        """``[G, N, V * H, d]``, rotated as attention compares them."""
        key = self.key.unflatten(-1, (heads, -1)).transpose(1, 2)
        key, _ = Chronos2RotaryEmbedding.apply_rotary_pos_emb(key, key, *self.rope)
        grouped: Tensor = self.groups.gather(key.transpose(1, 2)).transpose(1, 2).flatten(2, 3)
        return grouped

    def merge(self, layer: int, heads: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: AttentionOutput) -> AttentionOutput:
            assert output.hidden_states is not None
            tokens = self.groups.joined(output.hidden_states)
            front, behind = tokens.split([tokens.shape[1] - 1 - self.horizon, 1 + self.horizon], 1)
            made = self.run.merge(layer, front, self.keys(heads)[:, : front.shape[1]])
            # Without a merge at this point the very tokens go on.
            merged = self.groups.parted(tokens if made is front else torch.cat([made, behind], 1))
            return AttentionOutput(hidden_states=merged, attn_weights=output.attn_weights)

        return hook

    def unmerge(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        """What follows takes the horizon's tokens from the end of N."""
        tokens = self.groups.joined(output.last_hidden_state)
        front, behind = tokens.split([tokens.shape[1] - 1 - self.horizon, 1 + self.horizon], 1)
        output.last_hidden_state = self.groups.parted(torch.cat([self.run.unmerge(front), behind], 1))
        return output


def instrument(model: Any, run: MergeRun) -> list[RemovableHandle]:
    """Merge after the time attention's residual of each block; group attention and feed-forward follow.

    A token is padding where no series of its group has it.
    """
    follow, encoder = _Follower(run), model.encoder
    handles = [
        model.input_patch_embedding.register_forward_hook(follow.embedded),
        encoder.register_forward_pre_hook(follow.begin, with_kwargs=True),
    ]
    for layer, block in enumerate(encoder.block):
        time, group, _ = block.layer
        attention = time.self_attention
        handles += [
            time.register_forward_pre_hook(follow.align_time, with_kwargs=True),
            attention.k.register_forward_hook(follow.keep_key),
            attention.rope_embed.register_forward_hook(follow.keep_rope),
            time.register_forward_hook(follow.merge(layer, attention.n_heads)),
            group.register_forward_pre_hook(follow.align_group, with_kwargs=True),
            group.register_forward_hook(follow.keep_out_padding),
        ]
    handles.append(encoder.register_forward_hook(follow.unmerge))
    return handles
