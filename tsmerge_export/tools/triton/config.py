"""``config.pbtxt``: what Triton must know of a model, as text of its ``ModelConfig`` message.

Source: model_config.proto, and the documentation of Triton on model configuration and on its ONNX Runtime back end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tsmerge_export.bundle import TensorInfo
from tsmerge_export.errors import UnsupportedError, UsageError

#: First line of the file, by which a folder is known as one of ours.
MARK = "# Written by tsmerge triton."

_TYPES = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "float16": "TYPE_FP16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "bool": "TYPE_BOOL",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Serving:
    """How Triton runs a model.

    Attributes:
        name: of the model in the repository.
        max_batch_size: series of a call at most, >= 1, where the model takes any number of them.
        max_queue_delay_us: so long a request waits for others of its shape, microseconds; 0 does not wait.
        instances: sessions side by side. gpu: on each GPU, instead of on the CPU.
        threads: of a session; None is what ONNX Runtime takes. On a GPU without effect.
        operators: where the server finds the library of native operators; None runs the file's own functions.

    Raises:
        UsageError: one of them is out of range.
    """

    name: str
    max_batch_size: int = 64
    max_queue_delay_us: int = 2000
    instances: int = 1
    gpu: bool = False
    threads: int | None = None
    operators: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name}: must be letters, digits, '.', '_' and '-', at most 100 of them, no '.' in front"
            )
        numbers = (self.max_batch_size, self.instances, 1 if self.threads is None else self.threads)
        if min(numbers) < 1 or self.max_queue_delay_us < 0:
            raise UsageError(
                "--max-batch-size, --instances and --threads must be at least 1, --max-queue-delay-us 0"
            )
        if max(*numbers, self.max_queue_delay_us) >= 2**31:
            raise UsageError("a number of the configuration is larger than Triton's 32 bits")


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs as Triton sees them.

    Attributes:
        batched: the first axis of all of them is one that takes any number: Triton keeps it to itself.
        joined: rows do not see each other, so that requests may share a call.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batched: bool
    joined: bool


def signature(inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], *, joined: bool) -> Signature:
    """Of a component. ``joined``: whether its rows are independent of each other.

    Raises:
        UnsupportedError: a type that Triton has not.
    """
    for one in (*inputs, *outputs):
        if one.dtype not in _TYPES:
            raise UnsupportedError(f"{one.name}: Triton has no type for {one.dtype}")
    first = {one.dims[0] if one.dims else None for one in (*inputs, *outputs)}
    batched = len(first) == 1 and all(isinstance(dim, str) for dim in first)
    return Signature(tuple(inputs), tuple(outputs), batched, batched and joined)


def config(found: Signature, serving: Serving, warm: dict[str, tuple[int, ...]]) -> str:
    """The file.

    Args:
        warm: of each input the shape of the call that every instance makes before it is ready, batch included.
    """
    message: dict[str, Any] = {
        "name": serving.name,
        "backend": "onnxruntime",
        "max_batch_size": serving.max_batch_size if found.batched else 0,
        "input": [_tensor(one, found.batched) for one in found.inputs],
        "output": [_tensor(one, found.batched) for one in found.outputs],
        "instance_group": [
            {"count": serving.instances, "kind": _Word("KIND_GPU" if serving.gpu else "KIND_CPU")}
        ],
    }
    if found.joined and serving.max_batch_size > 1:
        message["dynamic_batching"] = {"max_queue_delay_microseconds": serving.max_queue_delay_us}
    if serving.threads is not None:
        message["parameters"] = [
            {"key": name, "value": {"string_value": str(value)}}
            for name, value in (("intra_op_thread_count", serving.threads), ("inter_op_thread_count", 1))
        ]
    if serving.operators is not None:
        message["model_operations"] = {"op_library_filename": [serving.operators]}
    message["model_warmup"] = [
        {
            "name": "warm",
            "batch_size": 1,
            "inputs": [
                {"key": one.name, "value": _warm(one, warm[one.name][1 if found.batched else 0 :])}
                for one in found.inputs
            ],
        }
    ]
    return MARK + "\n" + "".join(f"{line}\n" for line in _lines(message))


class _Word(str):
    """A value of an enum, which is written without quotes."""


def _tensor(one: TensorInfo, batched: bool) -> dict[str, Any]:
    dims = [dim if isinstance(dim, int) else -1 for dim in one.dims[1 if batched else 0 :]]
    entry: dict[str, Any] = {"name": one.name, "data_type": _Word(_TYPES[one.dtype]), "dims": dims or [1]}
    # Triton has no tensor without axes: one of a single number is made one on the way in, and back.
    return entry if dims else {**entry, "reshape": {}}


def _warm(one: TensorInfo, shape: tuple[int, ...]) -> dict[str, Any]:
    how = "random_data" if one.dtype.startswith("float") else "zero_data"
    return {"data_type": _Word(_TYPES[one.dtype]), "dims": list(shape) or [1], how: True}


def _lines(message: dict[str, Any], indent: str = "") -> Iterable[str]:
    """Text format of protocol buffers."""
    for name, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield f"{indent}{name} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_value(one)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not isinstance(value, _Word):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)
