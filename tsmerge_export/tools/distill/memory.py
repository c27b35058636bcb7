"""How many windows a step can take: bounded by memory, from what one forward keeps for its gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from tsmerge_export.eager.apply import merged_inside
from tsmerge_export.families.objective import Batch, Objective
from tsmerge_export.settings.config import MergeConfig

#: Windows of a step on a GPU, which has room for them side by side.
_MOST_ON_GPU = 256
#: Share of what is free that a step may take; gradients, the teacher and the allocator take the rest.
_SHARE = {"cpu": 0.25, "cuda": 0.5}
_UNKNOWN_FREE = 4 * 2**30


def bytes_kept(objective: Objective, model: nn.Module, merge: MergeConfig, batch: Batch) -> int:
    """Bytes that a forward of the merged model keeps for its gradients: what a step needs per batch."""
    kept: dict[int, int] = {}
    weights = {weight.data_ptr() for weight in model.parameters()}

    def pack(value: Tensor) -> Tensor:
        place = value.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = max(kept.get(place, 0), value.untyped_storage().nbytes())
        return value

    with (
        torch.enable_grad(),
        merged_inside(model, merge),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value),
    ):
        predicted = objective.outputs(model, batch)
    del predicted
    return sum(kept.values())


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device, about."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return _UNKNOWN_FREE


def batch_for(bytes_per_window: float, device: torch.device, most: int) -> int:
    """The largest power of two of windows that a step has room for, up to ``most`` on a CPU and 256 on a GPU; at
    least 1."""
    room = free_bytes(device) * _SHARE[device.type] / max(1.0, bytes_per_window)
    most = _MOST_ON_GPU if device.type == "cuda" else most
    while most > 1 and most > room:
        most //= 2
    return most


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was no memory: Python's, a GPU's, or a CPU allocation of PyTorch's."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
