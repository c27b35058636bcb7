"""A bundle as a folder of Triton's model repository: files, ``config.pbtxt``, and a call that shows that both fit."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

import numpy as np

from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, entries, look, sweep
from tsmerge_export.files.paths import real_path, room_for
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
        UnsupportedError: several components, which a decoding loop joins, or a bundle for another runtime.
        UsageError: something else stands there, it cannot be written, or a length that the file does not take.
    """
    refuse(bundle)
    (component,) = bundle.components
    entry = bundle.contents.components[0]
    target = real_path(repository) / serving.name
    if target.is_relative_to(bundle.path):
        raise UsageError(f"-o {repository}: lies in the bundle; choose another folder")
    target = _room(target, force)
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
        serving = Serving(**{**vars(serving), "library": str(where)})
    text = config(found, serving, shapes)
    seen = look(target)
    try:
        with Beside(target) as made:
            version = made.new / VERSION
            version.mkdir(parents=True)
            (made.new / CONFIG).write_text(text, encoding="utf-8")
            shutil.copyfile(component.file, version / MODEL)
            weights = component.file.with_name(f"{component.file.name}.data")
            if weights.name in bundle.contents.files:
                shutil.copyfile(weights, version / weights.name)
            if plugin is not None:
                shutil.copyfile(plugin, made.new / plugin.name)
            fsync_tree(made.new)
            made.put(seen)
    except ChangedError:
        raise UsageError(f"-o {target}: was made or changed by someone else meanwhile; it stays") from None
    except OSError as error:
        raise UsageError(f"-o {target}: cannot be written ({error.strerror or error})") from None
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


def _room(target: Path, force: bool) -> Path:
    """Check, before any work, that the model may be written. Makes missing parent folders."""
    if not target.exists():
        sweep(target.parent, target.name)
    if target.is_dir():
        if not _ours(target):
            raise UsageError(
                f"-o {target}: exists, and tsmerge triton did not write it; choose another --name"
            )
        if not force:
            raise UsageError(f"-o {target}: exists already; add --force to replace it")
    return room_for(target, target)


def _ours(folder: Path) -> bool:
    """Whether everything in it is what :func:`write` writes; an empty folder is."""
    names = [name for name, _ in entries(folder)]
    if not names:
        return True
    try:
        with (folder / CONFIG).open(encoding="utf-8") as file:
            marked = file.readline().strip() == MARK
    except (OSError, UnicodeDecodeError):
        return False
    known = (CONFIG, VERSION, f"{VERSION}/{MODEL}")
    return marked and all(
        name in known or (name.startswith(f"{VERSION}/") and name.endswith(".data")) or name.endswith(".so")
        for name in names
    )
