"""`tsmerge ort` without its flags: ONNX files in ORT format, proved to compute the same, and how fast they load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tsmerge_export.backends.onnxruntime.ort_format import open_portable
from tsmerge_export.backends.ratio import noted_default, value_of
from tsmerge_export.bundle import MANIFEST, Bundle
from tsmerge_export.errors import UnsupportedError, UsageError, VerdictError
from tsmerge_export.inspection.flops import feeds, load_graph
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.run_time import INPUT, METADATA
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_wire import read_model

ENDING = ".ort"
_SIZES = ((8, 512), (2, 128), (3, 40), (1, 16))
_TURNS = 5


@dataclass(frozen=True)
class Converted:
    """One file in both formats.

    Attributes:
        name: of the component. onnx_bytes, ort_bytes: sizes, weights included.
        onnx_load_ms, ort_load_ms: to open a session. onnx_first_ms, ort_first_ms: its first call. Medians of turns.
        batch, length: of that call.
    """

    name: str
    onnx_bytes: int
    ort_bytes: int
    onnx_load_ms: float
    ort_load_ms: float
    onnx_first_ms: float
    ort_first_ms: float
    batch: int
    length: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def files_of(source: str) -> dict[str, Path]:
    """The ONNX files of a bundle by component, or a single one by its stem.

    Raises:
        UsageError: neither.
    """
    path = Path(source)
    if (path / MANIFEST).is_file():
        return {component.name: component.file for component in Bundle.open(path).components}
    if path.suffix != ".onnx" or not path.is_file():
        raise UsageError(f"{source}: give a bundle or an .onnx file")
    return {path.stem: path}


def convert(
    name: str, file: Path, target: Path, *, plugin: Path | None = None, threads: int | None = None
) -> Converted:
    """Write a file in ORT format, and hold it against the original: the outputs must be the same bits.

    Args:
        file: ``.onnx``. target: where to. plugin: library of native operators, which the result then needs; None: their
            functions are written out.

    Raises:
        UnsupportedError: it may do harm where it is opened, holds too large weights, or ONNX Runtime cannot load it.
        VerdictError: the result computes something else.
    """
    why = risk(read_model(file))
    if why is not None:
        raise UnsupportedError(f"{file}: is not converted: {why}")
    model = load_graph(file)
    if onnx_weights.is_large(model):
        raise UnsupportedError(
            f"{file}: its weights are more than {onnx_weights.LIMIT / 1e9:.1f} GB, which ORT format does not hold; use "
            "the .onnx file"
        )
    open_portable(file, threads, plugin, save=target)
    before, after = open_portable(file, threads, plugin), open_portable(target, threads, plugin)
    compared: list[tuple[int, int]] = []
    for sizes in _SIZES:
        given = _feeds(model, *sizes)
        try:
            want = before.run(None, given)
        except Exception:  # of a size that the graph does not run at; ONNX Runtime has no common class
            continue
        got = after.run(None, given)
        if not all(_same(one, other) for one, other in zip(want, got, strict=True)):
            raise VerdictError(
                f"{file}: its form in ORT format computes something else at batch {sizes[0]}, length {sizes[1]}; "
                "nothing is written"
            )
        compared.append(sizes)
    if not compared:
        raise UnsupportedError(
            f"{file}: ONNX Runtime runs it on no generated input, so that nothing can be proved"
        )
    batch, length = compared[0]
    given = _feeds(model, batch, length)
    load: dict[Path, list[float]] = {file: [], target: []}
    first: dict[Path, list[float]] = {file: [], target: []}
    for turn in range(_TURNS):
        for path in (file, target) if turn % 2 == 0 else (target, file):
            begin = time.perf_counter()
            session = open_portable(path, threads, plugin)
            opened = time.perf_counter()
            session.run(None, given)
            load[path].append(1e3 * (opened - begin))
            first[path].append(1e3 * (time.perf_counter() - opened))
    bare = onnx.load(file, load_external_data=False)
    size = file.stat().st_size + onnx_weights.external_bytes(bare, file)
    return Converted(
        name=name,
        onnx_bytes=size,
        ort_bytes=target.stat().st_size,
        onnx_load_ms=statistics.median(load[file]),
        ort_load_ms=statistics.median(load[target]),
        onnx_first_ms=statistics.median(first[file]),
        ort_first_ms=statistics.median(first[target]),
        batch=batch,
        length=length,
    )


def _feeds(model: Any, batch: int, length: int) -> Mapping[str, NDArray[Any]]:
    """Generated inputs; of a file whose ratio is chosen at run time, its default."""
    found: dict[str, Any] = dict(feeds(model, batch, length))
    noted = next((entry.value for entry in model.metadata_props if entry.key == METADATA), None)
    if noted is not None and any(value.name == INPUT for value in model.graph.input):
        found[INPUT] = value_of(noted_default(noted))
    return found


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other, equal_nan=bool(np.issubdtype(np.asarray(one).dtype, np.floating)))
