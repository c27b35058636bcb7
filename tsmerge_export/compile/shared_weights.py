"""Weights that several components of a bundle hold are written once, to a file beside the graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx

from tsmerge_export.errors import UsageError
from tsmerge_export.onnx_model import weights as onnx_weights

WEIGHTS = "weights.bin"

# Smaller tensors stay in the graph: shape inference and constant folding read them.
_LEAST_BYTES = 1024
_ALIGNMENT = 4096  # ONNX Runtime maps pages


def share(files: Sequence[Path], folder: Path) -> Path | None:
    """Move the weights of some graphs to one file in ``folder``, every content once.

    A single graph is left alone: a file that holds its weights is easier to move about, and runs in a browser as it is.

    Args:
        files: ONNX files in ``folder``, which are rewritten.

    Returns:
        The file of weights; None for a single graph.

    Raises:
        UsageError: the disk is full.
    """
    if len(files) < 2:
        return None
    path = folder / WEIGHTS
    places: dict[bytes, tuple[int, int]] = {}
    try:
        with path.open("wb") as out:
            for file in files:
                model = onnx_weights.read(file)
                for tensor in model.graph.initializer:
                    if tensor.data_type == onnx.TensorProto.STRING:
                        continue
                    content = onnx_weights.array_of(tensor).tobytes()
                    if len(content) < _LEAST_BYTES:
                        continue
                    digest = hashlib.sha256(content).digest()
                    if digest not in places:
                        out.write(bytes(-out.tell() % _ALIGNMENT))
                        places[digest] = (out.tell(), len(content))
                        out.write(content)
                    onnx_weights.refer(tensor, WEIGHTS, *places[digest])
                Path(f"{file}.data").unlink(missing_ok=True)
                onnx.save_model(model, file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from error
    return path
