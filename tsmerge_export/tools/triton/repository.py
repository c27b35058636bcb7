"""A bundle as a folder of Triton's model repository: files, ``config.pbtxt``, and a call that shows that both fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.files.own_folder import check_own, write_own
from tsmerge_export.files.paths import real_path
from tsmerge_export.settings.usual_sizes import USUAL_SIZES
from tsmerge_export.tools.triton.config import MARK, Serving, Signature, config, signature

CONFIG, VERSION, MODEL = "config.pbtxt", "1", "model.onnx"
#: Steps of the call that warms an instance up, where nothing says how many.
_LENGTH = 512


def write(
    bundle: Bundle,
    repository: str | Path,
    serving: Serving,
    *,
    plugin: Path | None = None,
    mounted: str | None = None,
    length: int | None = None,
    force: bool = False,
) -> tuple[Path, tuple[str, ...]]:
    """Write the model into a repository.

    Args:
        bundle: with one component, in ONNX Runtime's form. repository: folder of all models, made where it is missing.
        plugin: library of native operators to lay beside the model; None runs the file's functions.
        mounted: where the server sees the repository; None is where it is written.
        length: steps of the series of the call that warms up; None is the model's context, at most 512.
        force: replace a model that this function wrote.

    Returns:
        The model's folder, and notes on how it is served.

    Raises:
        UnsupportedError: several components, which a decoding loop joins, or a type that Triton has not.
        UsageError: something else stands there, it cannot be written, or a length that the file does not take.
    """
    refuse(bundle)
    (component,) = bundle.components
    entry = bundle.contents.components[0]
    target = real_path(repository) / serving.name
    if target.is_relative_to(bundle.path):
        raise UsageError(f"-o {repository}: lies in the bundle; choose another folder")
    target = check_own(target, force, marked=_marked, ours=_ours, maker="tsmerge triton")
    inputs, notes = component.inputs, []
    if entry.ratio is not None:
        # A number for all rows of a call: requests with a ratio of their own cannot share one.
        inputs = (*inputs, TensorInfo(entry.ratio.input, "float32", ()))
        notes.append(f"requests are not joined: each says its own {entry.ratio.input} (1 number)")
    joined = not _rows_meet(bundle)
    found = signature(inputs, component.outputs, joined=joined)
    if not joined:
        notes.append(
            "requests are not joined: dynamic merging removes as many tokens from all rows of a batch"
        )
    elif entry.ratio is None and not found.batched:
        notes.append("requests are not joined: the file's batch is fixed")
    if found.joined and bundle.contents.precision is not None and bundle.contents.precision.kind == "int8":
        notes.append(
            "int8: the series of a call share the scales of activations, so that they move each other's rounding"
        )
    shapes = warm_shapes(bundle, found, length)
    _proved(component.file, found, shapes, serving, plugin)
    if plugin is not None:
        where = PurePosixPath(mounted or str(target.parent)) / serving.name / plugin.name
        serving = replace(serving, operators=str(where))
    text = config(found, serving, shapes)

    def make(folder: Path) -> None:
        version = folder / VERSION
        version.mkdir()
        (folder / CONFIG).write_text(text, encoding="utf-8")
        shutil.copyfile(component.file, version / MODEL)
        weights = component.file.with_name(f"{component.file.name}.data")
        if weights.name in bundle.contents.files:
            shutil.copyfile(weights, version / weights.name)
        if plugin is not None:
            shutil.copyfile(plugin, folder / plugin.name)

    write_own(target, target, make)
    return target, tuple(notes)


def refuse(bundle: Bundle) -> None:
    """Raises UnsupportedError for what no model of Triton's ONNX Runtime backend can be."""
    if len(bundle.components) > 1:
        names = ", ".join(component.name for component in bundle.components)
        raise UnsupportedError(
            f"{bundle.path}: forecasts by a loop over {names}, which no ensemble of Triton can run (it has no loops); "
            "serve it by tsm.pipeline, in a Python process"
        )


def warm_shapes(bundle: Bundle, found: Signature, length: int | None) -> dict[str, tuple[int, ...]]:
    """Of each input a shape that the file takes: one row, ``length`` steps."""
    pipeline = bundle.contents.pipeline or {}
    known = pipeline.get("context_length")
    steps = length or min(int(known) if isinstance(known, int) and known > 0 else _LENGTH, _LENGTH)
    shapes = {}
    for one in found.inputs:
        shapes[one.name] = tuple(
            dim if isinstance(dim, int) else 1 if axis == 0 else USUAL_SIZES.get(dim, steps)
            for axis, dim in enumerate(one.dims)
        )
    return shapes


def _rows_meet(bundle: Bundle) -> bool:
    """Whether how many tokens of a row go hangs on the other rows of its call."""
    merge = bundle.merge
    return merge.active and merge.method == "dynamic" and not merge.per_series


def _proved(
    file: Path, found: Signature, shapes: dict[str, tuple[int, ...]], serving: Serving, plugin: Path | None
) -> None:
    """Make the call that warms up. Raises UsageError where the file does not take it."""
    if serving.gpu:
        plugin = None  # a library for CUDA's provider; here the functions stand in
    session = GraphSession(file, threads=serving.threads, plugin=plugin)
    rng = np.random.default_rng(0)
    feed = {
        one.name: rng.standard_normal(shapes[one.name]).astype(one.dtype)
        if one.dtype.startswith("float")
        else np.zeros(shapes[one.name], one.dtype)
        for one in found.inputs
        if one.dims
    }
    try:
        outputs = session.run(feed)
    except TsmergeError as error:
        called = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise UsageError(f"--length: the call that warms up, {called}: {error}") from None
    for one in found.outputs:
        said = [dim for dim in one.dims if isinstance(dim, int)]
        got = [
            size for size, dim in zip(outputs[one.name].shape, one.dims, strict=True) if isinstance(dim, int)
        ]
        if said != got:
            raise UsageError(f"{file}: output {one.name} is {outputs[one.name].shape}, not {one.dims}")


def _marked(folder: Path) -> bool:
    """Whether :func:`write` wrote its configuration."""
    try:
        with (folder / CONFIG).open(encoding="utf-8") as file:
            return file.readline().strip() == MARK
    except (OSError, UnicodeDecodeError):
        return False


def _ours(name: str) -> bool:
    """Whether :func:`write` writes such."""
    inside = name.removeprefix(f"{VERSION}/")
    if inside != name:
        return inside == MODEL or inside.endswith(".data")
    return name in (CONFIG, VERSION) or name.endswith(".so")
