"""A graph from a file, ready to be merged: measured, with inputs that it runs on and what must not be merged in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.checkpoint.onnx_file import read_onnx
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError, VerdictError, first_line
from tsmerge_export.families.base import Arrays, Component, Hints, TensorSpec
from tsmerge_export.graphs.first_load import first_load
from tsmerge_export.graphs.noise import Unmerged
from tsmerge_export.graphs.prepare import opset_of, prepare
from tsmerge_export.graphs.reference import Reference
from tsmerge_export.graphs.sizes import Found, find_sizes
from tsmerge_export.graphs.windows import beyond
from tsmerge_export.inspection.feeds import FIRST_AXIS, TOKEN_MASK, Input, Sizes, make, read_inputs
from tsmerge_export.inspection.measure import measure
from tsmerge_export.rewrite.dims import dims
from tsmerge_export.rewrite.points import find_points
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.untrusted.isolated import within_memory
from tsmerge_export.verify.tolerances import end_to_end

FAMILY = "onnx"
SUFFIXES = (".onnx", ".pt2")
_MASK_OUTPUT = "tsmerge_token_mask"


@dataclass(frozen=True)
class GraphOptions:
    """What a file does not tell about its tokens.

    Args:
        token_mask: name of an input ``[batch, tokens]`` that is 0 where a token is padding; ``"none"``: there is none;
            None: ``attention_mask``, where there is such an input with one entry per token.
        protect_first, protect_last: special tokens at either end that take no part (1 for a class token in front).
        inputs: ``.npz`` file with an example of every input.

    Raises:
        UsageError: a negative number.
    """

    token_mask: str | None = None
    protect_first: int = 0
    protect_last: int = 0
    inputs: str | Path | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--protect-first", self.protect_first), ("--protect-last", self.protect_last)):
            if value < 0:
                raise UsageError(f"{flag} {value} is negative")

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that were used."""
        flags = (
            ("--token-mask", self.token_mask is not None),
            ("--protect-first", self.protect_first),
            ("--protect-last", self.protect_last),
            ("--inputs", self.inputs is not None),
        )
        return tuple(flag for flag, used in flags if used)

    def to_dict(self) -> dict[str, Any]:
        """What a bundle's manifest keeps."""
        return {
            "token_mask": self.token_mask,
            "protect_first": self.protect_first,
            "protect_last": self.protect_last,
        }


class GraphComponent(Component):
    """The one component of a graph. It has no module: parity runs the original graph instead."""

    name = "model"

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], hints: Hints) -> None:
        self.inputs, self.outputs, self.hints = tuple(inputs), tuple(outputs), hints

    def module(self, model: nn.Module) -> nn.Module:
        """There is none."""
        raise TypeError("a graph from a file has no module")

    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """There is none."""
        raise TypeError("a graph from a file has no module")

    def from_series(self, model: nn.Module, series: NDArray[np.float32]) -> Arrays:
        """Nobody knows how."""
        raise TypeError("it is not known what the inputs of a graph from a file mean")


@dataclass
class GraphModel:
    """A graph from a file.

    Attributes:
        original: as in the file, functions inlined. plain: what the rewriter gets, see :mod:`.prepare`.
        measured: ``plain`` with dims, and with the token mask as an extra output.
        sizes: that it runs at; every dynamic dim has another size in each. given: the user's example.
        short: more sizes, of the shortest lengths that it runs at and beyond its windows.
        token_mask: input that says which tokens are padding.
        batch_first: the first axis of the inputs is the batch.
        files: keeps the folder in which large weights of a converted program are.
    """

    source: str
    original: onnx.ModelProto
    plain: onnx.ModelProto
    measured: ir.Model
    inputs: tuple[Input, ...]
    component: GraphComponent
    sizes: tuple[Sizes, ...]
    given: Arrays | None
    token_mask: str | None
    notes: list[str] = field(default_factory=list)
    batch_first: bool = True
    files: object = None
    short: tuple[Sizes, ...] = ()

    @property
    def opset(self) -> int:
        """Of the artefact."""
        return opset_of(self.plain)

    def example(self, index: int) -> Arrays:
        """Random inputs of one of the sizes; the user's example is the first."""
        if index == 0 and self.given is not None:
            return self.given
        return make(self.inputs, self.sizes[index])

    def sizes_at(self, shape: OneShape) -> Sizes:
        """Its named dims at one shape: every one but the batch is the length."""
        return {dim: shape.batch if dim == "batch" else shape.length for dim in self.sizes[0]}


def is_graph_file(source: object) -> TypeGuard[str | Path]:
    """Whether a source is a file that holds a graph instead of weights."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def load_graph_model(
    source: str | Path,
    options: GraphOptions,
    *,
    opset: int | None = None,
    ends: Sequence[Sequence[str]] | None = None,
) -> GraphModel:
    """Read a file, find out what it runs on, and measure it.

    Args:
        opset: for a ``.pt2`` file. ends: names of the inputs and the outputs that it must have.

    Raises:
        UsageError: the file or an option is wrong. UnsupportedError: nothing can be done with it.
        VerdictError: the form that the rewriter works on computes something else than the file.
    """
    path = Path(source)
    if path.suffix.lower() == ".pt2":
        from tsmerge_export.graphs.program import onnx_of_program

        with onnx_of_program(path, opset) as program:
            first_load(program.model, str(source), options, opset, ends)
            with within_memory():
                model = _measured(str(source), options, program.model, program.run, ends)
        model.files = program.files
        return model
    original = read_onnx(path)
    first_load(original, str(source), options, opset, ends)
    with within_memory():
        return _measured(str(source), options, original, None, ends)


def _measured(
    source: str,
    options: GraphOptions,
    original: onnx.ModelProto,
    eager: Callable[[Arrays], Arrays] | None,
    ends: Sequence[Sequence[str]] | None,
) -> GraphModel:
    plain = prepare(original, str(source))
    for what, values, names in zip(
        ("inputs", "outputs"), (plain.graph.input, plain.graph.output), ends or (), strict=False
    ):
        own = [value.name for value in values]
        if own != list(names):
            raise UsageError(
                f"{source}: the bundle was made from another model, with {what} {', '.join(names)}; here they are "
                f"{', '.join(own)}"
            )
    session = _open(original, str(source))

    def look(batch: str | None) -> tuple[Arrays | None, Found, ir.Model, tuple[TensorSpec, ...]]:
        inputs = read_inputs(plain, str(source), batch)
        given = None if options.inputs is None else _read_example(Path(options.inputs), inputs)
        mask = options.token_mask or TOKEN_MASK
        found = find_sizes(lambda feeds: session.run(None, feeds), inputs, str(source), given, mask)
        try:
            measured, outputs = measure(plain, found.inputs, (*found.sizes, *found.short), given)
            wider = beyond(lambda feeds: session.run(None, feeds), measured, found)
            if wider != found:
                found = wider
                measured, outputs = measure(plain, found.inputs, (*found.sizes, *found.short), given)
        except TsmergeError:
            raise
        except Exception as error:  # numpy has fewer dims than ONNX Runtime, which has errors of its own
            raise UnsupportedError(f"{source}: its values cannot be measured: {first_line(error)}") from error
        return given, found, measured, outputs

    given, found, measured, outputs = look(FIRST_AXIS)
    batch = _batch_dim(measured, found.sizes[0])
    if batch != "batch":
        given, found, measured, outputs = look(batch)
    token_mask = _token_mask(options.token_mask, found.inputs)
    hints = Hints(
        token_mask=None if token_mask is None else _MASK_OUTPUT,
        protect_first=options.protect_first,
        protect_last=options.protect_last,
    )
    component = GraphComponent([item.spec for item in found.inputs], outputs, hints)
    model = GraphModel(
        str(source), original, plain, measured, found.inputs, component, found.sizes, given, token_mask,
        list(found.notes), batch == "batch", short=found.short,
    )  # fmt: skip
    _prove_equal(model, session, eager)
    if token_mask is not None:
        _add_mask_output(measured, token_mask)
    return model


def _open(original: onnx.ModelProto, source: str) -> Any:
    try:
        return open_session(original)
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        reason = " ".join(str(error).split())[-200:]
        raise UnsupportedError(f"{source}: ONNX Runtime does not open it: {reason}") from error


def _batch_dim(measured: ir.Model, sizes: Sizes) -> str | None:
    """The dim of the inputs that counts the rows where tokens merge; None: there is one row, or a fixed number."""
    rows = {(dims(point.value) or [None, None])[1 - point.axis] for point in find_points(measured.graph)[0]}
    if len(rows) != 1 or not all(isinstance(dim, int) or dim in sizes for dim in rows):
        return "batch"  # or a product of it, where series have channels that are rows of their own
    (dim,) = rows
    if not isinstance(dim, int):
        return dim
    if "batch" in sizes:
        return None
    # Both are fixed: where there are fewer rows than entries of the first axis, that is something else.
    first = [value.shape[0] for value in measured.graph.inputs if value.shape]
    return None if first and all(isinstance(size, int) and dim % size for size in first) else "batch"


def _read_example(path: Path, inputs: Sequence[Input]) -> Arrays:
    """The user's example, of the right names, types and ranks."""
    try:
        check_model_bytes(str(path), path.stat().st_size)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise UsageError(f"--inputs {path}: no such file") from None
    except UsageError:
        raise
    except Exception:  # zipfile, numpy and pickle each have their own
        raise UsageError(f"--inputs {path}: cannot be read as a .npz file of plain arrays") from None
    out = {}
    for item in inputs:
        name, dims = item.spec.name, item.spec.dims
        if name not in arrays:
            raise UsageError(f"--inputs {path}: has no array {name!r}; the inputs are {_names(inputs)}")
        array = arrays[name]
        fits = array.ndim == len(dims) and all(
            isinstance(dim, str) or dim == size for dim, size in zip(dims, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in "fiub":
            raise UsageError(f"--inputs {path}: {name!r} is {list(array.shape)}, expected {list(dims)}")
        out[name] = np.ascontiguousarray(array.astype(item.spec.dtype))
    return out


def _names(inputs: Sequence[Input]) -> str:
    return ", ".join(item.spec.name for item in inputs)


def _token_mask(wanted: str | None, inputs: Sequence[Input]) -> str | None:
    """The input that says which tokens are padding."""
    if wanted == "none":
        return None
    by_name = {item.spec.name: item.spec for item in inputs}
    if wanted is None:
        found = by_name.get(TOKEN_MASK)
        return TOKEN_MASK if found is not None and len(found.dims) == 2 else None
    if wanted not in by_name:
        raise UsageError(f"--token-mask {wanted}: is not an input; the inputs are {_names(inputs)}")
    if len(by_name[wanted].dims) != 2:
        raise UsageError(
            f"--token-mask {wanted}: must be [batch, tokens], it is {list(by_name[wanted].dims)}"
        )
    return wanted


def _add_mask_output(measured: ir.Model, name: str) -> None:
    source = next(value for value in measured.graph.inputs if value.name == name)
    copy = ir.Value(name=_MASK_OUTPUT, type=ir.TensorType(source.dtype), shape=source.shape)  # type: ignore[arg-type]
    node = ir.node("Identity", [source], outputs=[copy], name=_MASK_OUTPUT)
    first = next(iter(measured.graph), None)
    if first is None:
        measured.graph.append(node)
    else:
        measured.graph.insert_before(first, node)
    measured.graph.outputs.append(copy)


def drop_mask(model: GraphModel) -> None:
    """Go on without a token mask that was only guessed."""
    model.token_mask = None
    model.measured.graph.outputs[:] = [v for v in model.measured.graph.outputs if v.name != _MASK_OUTPUT]
    hints = model.component.hints
    model.component.hints = Hints(protect_first=hints.protect_first, protect_last=hints.protect_last)


def _prove_equal(model: GraphModel, session: Any, eager: Callable[[Arrays], Arrays] | None) -> None:
    """Run the file and the form that the rewriter works on; and the program that it was exported from, if any."""
    names = [spec.name for spec in model.component.outputs]
    plain, alone = open_session(model.plain), Reference(model.plain, [], [])
    tolerance = end_to_end(FAMILY)
    examples = [model.example(index) for index in range(len(model.sizes))]
    for index, feeds in enumerate([*examples, *(make(model.inputs, sizes) for sizes in model.short)]):
        want = dict(zip(names, session.run(names, feeds), strict=True))
        rivals = {"its form with single operators": dict(zip(names, plain.run(names, feeds), strict=True))}
        if eager is not None and index < len(examples):  # a program may refuse what its ONNX form runs
            rivals["the exported program itself"] = eager(feeds)
        unmerged = Unmerged(alone, feeds, tolerance)
        for what, got in rivals.items():
            for name in names:
                fault = unmerged.fault(name, want[name], got[name])
                if fault:
                    raise VerdictError(
                        f"{model.source}: output {name!r} differs between the ONNX file and {what}: {fault}"
                    )
