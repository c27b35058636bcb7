"""From an eager module to plain ONNX with batch and length dynamic, and the proof that they are."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import nn

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.compile.known_dims import fill_dims
from tsmerge_export.console.quiet import quiet
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.families.base import Component
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.rewrite.dims import rename_dims

MIN_OPSET, MAX_OPSET = 18, 23
DEFAULT_OPSET = 18

# Batch and steps traced; no size that a proof runs at.
EXAMPLE = (3, 203)
_PROOF_BATCHES = (1, 5)
_PROOF_LENGTHS = (1, 37, 640)
# Export rewrites no arithmetic, so only the order of sums differs: float32 noise relative to the output's scale.
_PROOF_TOLERANCE = 2e-4


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress prints and registration warnings off the user's terminal."""
    with quiet("torch.onnx"), warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def export_component(
    component: Component, model: nn.Module, *, opset: int = DEFAULT_OPSET, folder: Path | None = None
) -> ir.Model:
    """Export one component without merging.

    Args:
        component: what to export. model: the family's original module, in eval mode. opset: as of :func:`trace`.
        folder: where weights go that are too large for one message, see :mod:`.onnx_weights`; None: memory.

    Returns:
        The model; its dynamic dims carry the names of the component's specs, and those that the exporter does not tell
        are measured. The outputs are the component's, then ``hints.token_mask`` and ``hints.apart`` where they are
        extra.

    Raises:
        UnsupportedError: the exporter froze a dim, refused the module, or does not know the opset.
        UsageError: ``folder`` cannot be written.
    """
    return finish(trace(component, model, opset=opset), component, model, folder=folder)


def trace(component: Component, model: nn.Module, *, opset: int = DEFAULT_OPSET) -> torch.onnx.ONNXProgram:
    """The exporter's graph of a component: no value of a weight has entered it but as an initializer of its name.

    Args:
        component: what to export. model: the family's original module, in eval mode.
        opset: ONNX operator set, 18 to 23.

    Raises:
        UnsupportedError: the exporter refused the module, or does not know the opset.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(f"--opset {opset} is not supported; choose {MIN_OPSET} to {MAX_OPSET}")
    module = component.module(model).eval()
    example = component.to_trace(model, *EXAMPLE)
    args = tuple(torch.from_numpy(example[spec.name]) for spec in component.inputs)
    dynamic = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, dim in enumerate(spec.dims) if isinstance(dim, str)}
        for spec in component.inputs
    )
    outputs = [spec.name for spec in component.outputs]
    hints = component.hints
    outputs += [name for name in (hints.token_mask, hints.apart) if name is not None and name not in outputs]
    with _refusals(component), quiet_exporter(), torch.no_grad():
        exported = torch.export.export(
            module,
            args,
            dynamic_shapes=_as_arguments(module, dynamic),
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=opset,
            input_names=[spec.name for spec in component.inputs],
            output_names=outputs,
            verbose=False,
            optimize=False,  # that is for finish
        )
    if program is None:
        raise UnsupportedError(f"component {component.name!r} does not export to ONNX")
    return program


def finish(
    program: torch.onnx.ONNXProgram, component: Component, model: nn.Module, *, folder: Path | None = None
) -> ir.Model:
    """What :func:`trace` gives, with constants folded and dims named; it is changed. See :func:`export_component`."""
    with _refusals(component), quiet_exporter():
        program.optimize()
    result: ir.Model = program.model
    RemoveUnusedNodesPass()(result)  # bodies of loops leave constants behind, which runtimes warn about
    _name_dims(result, component)
    if folder is not None:
        try:
            onnx_weights.to_files(result, folder)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be written ({error.strerror})") from error
    fill_dims(result, component, model)
    return result


@contextmanager
def _refusals(component: Component) -> Iterator[None]:
    """The exporter raises many types; each means that this module does not export."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(f"component {component.name!r} does not export to ONNX: {reason}") from error


def _as_arguments(module: nn.Module, dynamic: tuple[Any, ...]) -> tuple[Any, ...]:
    """Per argument of forward; what its ``*args`` takes is one tuple of its own."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return dynamic
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*dynamic[:named], dynamic[named:])


def _name_dims(model: ir.Model, component: Component) -> None:
    """Rename the exporter's symbols to the component's dim names, and refuse frozen dims."""
    names: dict[str, str] = {}
    for value, spec in zip(model.graph.inputs, component.inputs, strict=True):
        for axis, dim in enumerate(spec.dims):
            symbol = value.shape[axis] if value.shape is not None else None
            if isinstance(dim, str):
                if not isinstance(symbol, ir.SymbolicDim) or symbol.value is None:
                    raise UnsupportedError(
                        f"the exporter froze dim {dim!r} of input {spec.name!r} to {symbol}"
                    )
                names[symbol.value] = dim
    rename_dims(model, lambda dim: re.sub(r"[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), dim))


def prove_dynamic(component: Component, model: nn.Module, exported: ir.Model) -> None:
    """Run the exported file at batch sizes and lengths other than the traced ones, against the original module.

    Symbolic dims alone prove nothing: the exporter can freeze a size inside the graph.

    Raises:
        VerdictError: it does not run, or computes something else, at one of the sizes.
    """
    session = open_session(ir.serde.serialize_model(exported))
    for batch in _PROOF_BATCHES:
        for length in _PROOF_LENGTHS:
            inputs = component.example(model, batch, length, seed=batch + length)
            where = f"component {component.name!r} at batch {batch}, length {length}"
            try:
                got = session.run([spec.name for spec in component.outputs], inputs)
            except Exception as error:
                raise VerdictError(
                    f"{where} does not run in ONNX Runtime: {str(error).splitlines()[0]}"
                ) from error
            want = eager_outputs(component, model, inputs)
            for spec, value in zip(component.outputs, got, strict=True):
                reference = want[spec.name].astype(np.float64)
                worst = np.abs(value - reference).max() if value.shape == reference.shape else np.inf
                if not worst <= _PROOF_TOLERANCE * max(1.0, np.abs(reference).max()):
                    raise VerdictError(
                        f"{where}: output {spec.name!r} differs from eager PyTorch by {worst:.3g}"
                    )


def eager_outputs(
    component: Component, model: nn.Module, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run the original module on numpy inputs."""
    with torch.no_grad():
        outputs = component.eager(model, {name: torch.from_numpy(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}
