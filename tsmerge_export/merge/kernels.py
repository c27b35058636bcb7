"""``torch.ops.tsmerge.local_merge``: local merging of an eager model's CUDA tensors by the kernels of ``plugins``.

The reference takes some forty operators of PyTorch; the kernels take three launches and wait for nothing, and to
torch.compile the operator is one node. They are in the library of ``plugins/onnxruntime_cuda``, found as
:mod:`tsmerge_export.backends.onnxruntime.native` finds it; where there is none, the operator is the reference.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import library as torch_library

from tsmerge_export.backends.onnxruntime.native import CUDA_LIBRARY, find_library
from tsmerge_export.console.notes import note
from tsmerge_export.methods.amount import removed_by
from tsmerge_export.methods.combine import Merged, identity
from tsmerge_export.methods.local.reference import LocalMethod
from tsmerge_export.methods.method import Attributes

OP_TYPE = "LocalMerge"
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
#: Of the kernels' workspace, bytes.
_ALIGNED = 256
_NUMBERS = ("k", "r", "ratio_num", "ratio_den", "min_tokens", "protect_first", "protect_last")
_SIZES = ("batch", "tokens", "features", "metric_features", "x_type", "metric_type")
_POINTERS = ("x", "metric", "size", "y", "size_out", "kept", "target", "workspace", "stream")


class _Call(ctypes.Structure):
    """``TsmergeLocalMerge`` of ``plugins/onnxruntime_cuda/local_merge_c.cpp``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("bytes", *_NUMBERS, "similarity", "causal", *_SIZES)),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    )


class Kernels:
    """The library's entries.

    Attributes:
        device: type of the tensors that it takes: ``cuda``, or ``cpu`` where its kernels are emulated.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError: no library. AttributeError: one without these entries."""
        library = ctypes.CDLL(str(path))
        self._bytes, self._run = library.tsmerge_local_merge_workspace, library.tsmerge_local_merge
        self._bytes.restype, self._run.restype = ctypes.c_int64, ctypes.c_char_p
        self.device = "cuda" if library.tsmerge_on_gpu() else "cpu"

    def take(self, x: Tensor, metric: Tensor) -> bool:
        """Whether these are tensors of the kernels."""
        return x.device.type == self.device and x.dtype in _TYPES and metric.dtype in _TYPES

    def local_merge(
        self, x: Tensor, metric: Tensor, size: Tensor, attributes: Attributes
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the reference returns, without a gradient; ``x``, ``metric`` and ``size`` as it takes them.

        Raises:
            RuntimeError: the kernels could not be launched.
        """
        x, metric, size = x.contiguous(), metric.contiguous(), size.float().contiguous()
        batch, tokens, features = x.shape
        outputs = _outputs(x, tokens - removed_by(attributes, tokens))
        call = _Call(bytes=ctypes.sizeof(_Call), **{name: int(attributes[name]) for name in _NUMBERS})
        call.similarity, call.causal = int(attributes.get("similarity", 0)), int(attributes.get("causal", 0))
        call.batch, call.tokens, call.features, call.metric_features = (
            batch,
            tokens,
            features,
            metric.shape[2],
        )
        call.x_type, call.metric_type = _TYPES.index(x.dtype), _TYPES.index(metric.dtype)
        needed = self._bytes(ctypes.byref(call))
        if needed < 0:
            raise RuntimeError("the library of the merge kernels is of another version; build it anew")
        workspace = torch.empty(needed + _ALIGNED, dtype=torch.uint8, device=x.device)
        named = zip(_POINTERS, (x, metric, size, *outputs, workspace), strict=False)
        for name, tensor in named:
            setattr(call, name, tensor.data_ptr())
        call.workspace = -(-workspace.data_ptr() // _ALIGNED) * _ALIGNED
        if x.is_cuda:
            with torch.cuda.device(x.device):
                call.stream = torch.cuda.current_stream().cuda_stream
                failed = self._run(ctypes.byref(call))
        else:
            failed = self._run(ctypes.byref(call))
        if failed is not None:
            raise RuntimeError(f"the merge kernels: {failed.decode()}")
        return outputs


def _outputs(x: Tensor, left: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, size, kept and target, not written yet."""
    batch, tokens, features = x.shape
    return (
        x.new_empty((batch, left, features)),
        x.new_empty((batch, left), dtype=torch.float32),
        x.new_empty((batch, left), dtype=torch.int64),
        x.new_empty((batch, tokens), dtype=torch.int64),
    )


def found() -> Kernels | None:
    """The kernels, where there is a GPU (or their library is named) and the library has them."""
    if not (torch.cuda.is_available() or os.environ.get(CUDA_LIBRARY.variable)):
        return None
    path = find_library(library=CUDA_LIBRARY)
    return None if path is None else _loaded(path)


@cache
def _loaded(path: Path) -> Kernels | None:
    try:
        return Kernels(path)
    except OSError as error:
        reason = str(error)
    except AttributeError:
        reason = f"it has no local_merge for PyTorch; build {CUDA_LIBRARY.source} anew"
    note(f"{path}: {reason}; eager models merge by operators of PyTorch")
    return None


def merged(
    kernels: Kernels, x: Tensor, metric: Tensor, size: Tensor | None, attributes: Attributes
) -> Merged:
    """A merge step of ``x [B, N, D]`` by the operator; as the reference's, gradients of ``x`` alone."""
    size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
    if removed_by(attributes, x.shape[1]) == 0:
        return identity(x, size)
    numbers = [int(attributes[name]) for name in _NUMBERS]
    return Merged(
        *torch.ops.tsmerge.local_merge(
            x, metric.detach(), size, *numbers, int(attributes.get("similarity", 0)),
            bool(attributes.get("causal", 0)),
        )
    )  # fmt: skip


@torch_library.custom_op("tsmerge::local_merge", mutates_args=())
def local_merge(
    x: Tensor,
    metric: Tensor,
    size: Tensor,
    k: int,
    r: int,
    ratio_num: int,
    ratio_den: int,
    min_tokens: int,
    protect_first: int,
    protect_last: int,
    similarity: int = 0,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The operator ``tsmerge::LocalMerge`` (docs/operators.md) on tensors of PyTorch.

    Args:
        x: ``[B, N, D]`` float32, float16 or bfloat16. metric: ``[B, N, Dm]``, what is compared. size: ``[B, N]``
            float32, original tokens per token, 0 is padding.
        k: neighbourhood, 0 is all. r, ratio_num, ratio_den: so many tokens go, or this share.
        min_tokens, protect_first, protect_last, similarity, causal: see
            :func:`~tsmerge_export.methods.local.reference.local_merge`; 0, 1, 2 are cosine, l2 and dot.

    Returns:
        y ``[B, M, D]``, size ``[B, M]``, kept ``[B, M]`` and target ``[B, N]``.
    """
    attributes: dict[str, int | float] = {
        "k": k, "r": r, "ratio_num": ratio_num, "ratio_den": ratio_den, "min_tokens": min_tokens,
        "protect_first": protect_first, "protect_last": protect_last, "similarity": similarity, "causal": causal,
    }  # fmt: skip
    kernels = found()
    if kernels is not None and kernels.take(x, metric):
        return kernels.local_merge(x, metric, size, attributes)
    y, size_out, kept, target = LocalMethod().merge(x, metric, size, attributes)
    # An output of an operator is none of its inputs.
    return (y.clone(), size_out.clone(), kept, target.clone())


@local_merge.register_fake
def _(
    x: Tensor, metric: Tensor, size: Tensor, k: int, r: int, ratio_num: int, ratio_den: int, *bounds: Any
) -> tuple[Tensor, ...]:
    names = ("min_tokens", "protect_first", "protect_last")
    attributes = {
        "r": r,
        "ratio_num": ratio_num,
        "ratio_den": ratio_den,
        **dict(zip(names, bounds, strict=False)),
    }
    return _outputs(x, x.shape[1] - removed_by(attributes, x.shape[1]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, size_out, kept, target = output
    ctx.save_for_backward(inputs[2], size_out, kept, target)
    ctx.causal, ctx.count = inputs[-1], len(inputs)


def _backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Of the mean of a token's members by their sizes (R6.3 to R6.5)."""
    size, size_out, kept, target = ctx.saved_tensors
    if ctx.causal:  # the slot is read from before; the value went into the next token, which survives
        survives = torch.zeros_like(target).scatter(1, kept, 1)
        place = survives.cumsum(1) - 1
        target = torch.where(survives > 0, place, place + 1)
    own = size.gather(1, kept)
    received = (size_out > own) & (size_out > 0)
    mean = size / torch.where(received, size_out, 1.0).gather(1, target)
    alone = torch.zeros_like(size).scatter(1, kept, 1.0)
    weight = torch.where(received.gather(1, target), mean, alone)
    index = target[..., None].expand(-1, -1, gradient.shape[2])
    found = gradient.float().gather(1, index) * weight[..., None]
    return (found.to(gradient.dtype), *[None] * (ctx.count - 1))


local_merge.register_autograd(_backward, setup_context=_keep)
