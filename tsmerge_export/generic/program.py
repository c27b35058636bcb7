"""From an exported program (``.pt2``) to plain ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir as ir
import torch
from onnx import inliner
from torch.utils import _pytree as pytree

from tsmerge_export import onnx_weights
from tsmerge_export.checkpoint.program_file import read_program
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.families.base import Arrays
from tsmerge_export.onnx_export import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET, quiet


def onnx_of_program(
    path: Path, opset: int | None = None
) -> tuple[onnx.ModelProto, Callable[[Arrays], Arrays]]:
    """Export a program.

    Returns:
        The ONNX model, and what runs the program itself on the same inputs and outputs by name.

    Raises:
        UnsupportedError: it does not export, or has inputs or outputs that are no tensors.
    """
    opset = DEFAULT_OPSET if opset is None else opset
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(f"--opset {opset} is not supported; choose {MIN_OPSET} to {MAX_OPSET}")
    program = read_program(path)
    try:
        with quiet(), torch.no_grad():
            exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
    except Exception as error:  # the exporter raises many types; each means that this program does not export
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(f"{path}: does not export to ONNX: {reason}") from error
    if exported is None:
        raise UnsupportedError(f"{path}: does not export to ONNX")
    folder = TemporaryDirectory(prefix="tsmerge-")
    try:
        onnx_weights.to_files(exported.model, Path(folder.name))
    except OSError as error:
        raise UsageError(f"{folder.name}: cannot be written ({error.strerror})") from error
    model = ir.to_proto(exported.model)
    model = inliner.inline_local_functions(model) if model.functions else model
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    spec = program.call_spec.in_spec
    if spec is None or spec.num_leaves != len(inputs):
        raise UnsupportedError(f"{path}: has inputs that are no tensors; export it with tensors only")
    # Guards would be compiled from text in the file; sizes are checked by comparing results instead.
    module = program.module(check_guards=False)

    def run(feeds: Arrays, _weights: TemporaryDirectory[str] = folder) -> Arrays:  # there as long as this is
        args, kwargs = pytree.tree_unflatten([torch.from_numpy(feeds[name]) for name in inputs], spec)
        with torch.no_grad():
            found = pytree.tree_leaves(module(*args, **kwargs))
        if len(found) != len(outputs):
            raise UnsupportedError(f"{path}: has outputs that are no tensors; export it with tensors only")
        return {name: value.numpy() for name, value in zip(outputs, found, strict=True)}

    return model, run
