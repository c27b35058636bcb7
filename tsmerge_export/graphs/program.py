"""From an exported program (``.pt2``) to plain ONNX, in a process of its own: torch evaluates what the file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.compile.onnx_export import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.families.base import Arrays
from tsmerge_export.untrusted.isolated import Child, Limits


@dataclass(frozen=True)
class Program:
    """``model``: as ONNX. ``run``: the program itself, inputs by name to outputs by name. ``files``: large weights."""

    model: onnx.ModelProto
    run: Callable[[Arrays], Arrays]
    files: object


@contextmanager
def onnx_of_program(path: Path, opset: int | None = None) -> Iterator[Program]:
    """Export a program. What is handed out as data outlives the block; ``run`` does not.

    Raises:
        UsageError: the file is missing, unreadable or unsafe.
        UnsupportedError: it does not export, has inputs or outputs that are no tensors, or takes too long.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(f"--opset {opset} is not supported; choose {MIN_OPSET} to {MAX_OPSET}")
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    folder = TemporaryDirectory(prefix="tsmerge-")
    place = Path(folder.name)
    with Child("tsmerge_export.graphs.program_task:handle", str(path), Limits.for_file(size)) as child:
        child.ask({"do": "convert", "path": str(path), "folder": folder.name, "opset": opset})
        try:
            model = read_onnx(place / "model.onnx")
        except TsmergeError as error:
            raise type(error)(str(error).replace(str(place / "model.onnx"), str(path))) from None
        outputs = [value.name for value in model.graph.output]

        def run(feeds: Arrays) -> Arrays:
            arguments: dict[str, Any] = dict(feeds)
            np.savez(place / "inputs.npz", **arguments)
            child.ask({"do": "run", "path": str(path), "folder": folder.name})
            with np.load(place / "outputs.npz", allow_pickle=False) as found:
                arrays: dict[str, Any] = {
                    name: found[str(index)] for index, name in enumerate(outputs) if str(index) in found.files
                }
            if len(arrays) != len(outputs):
                raise UnsupportedError(
                    f"{path}: has outputs that are no tensors; export it with tensors only"
                )
            return arrays

        yield Program(model, run, folder)
