"""A graph that may not end, may take all memory, or may crash ONNX Runtime: opened and run in a process of its own.

It stays there for good: a run that ended well says nothing about the next one, with other numbers.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.bundle import TensorInfo
from tsmerge_export.errors import TsmergeError, UnsupportedError
from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.isolated import Answer, Child, Limits
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_wire import read_model


class GraphApart:
    """One ONNX file in a process of its own; with the limits of :class:`~tsmerge_export.untrusted.isolated.Limits`.

    Args:
        path: the file.
        settings: keyword arguments of :class:`.onnxruntime.GraphSession`, as JSON has them.

    Raises:
        UnsupportedError: it did not open there. Others as of GraphSession.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path.resolve(), settings
        self._folder = tempfile.TemporaryDirectory(prefix="tsmerge-apart-")
        weakref.finalize(self, self._folder.cleanup)
        self._lock = threading.Lock()  # one line, one answer
        self._numbers = itertools.count()
        self._child: Child | None = None
        self._end: weakref.finalize[..., Any] | None = None
        answer = self._ask({})
        self.inputs, self.outputs = (
            tuple(TensorInfo(name, dtype, tuple(dims)) for name, dtype, dims in answer[key])
            for key in ("inputs", "outputs")
        )
        noted = answer["ratio"]
        self.default_ratio = None if noted is None else Fraction(noted)

    def run(self, feed: Mapping[str, NDArray[Any]], ratio: Fraction | None = None) -> dict[str, NDArray[Any]]:
        """Outputs by name. After a crash the next call opens the graph again.

        Raises:
            UnsupportedError: it took too long, too much memory, or crashed. UsageError: it does not run on that feed.
        """
        number = next(self._numbers)
        given, made = (Path(self._folder.name) / f"{kind}{number}.npz" for kind in ("in", "out"))
        try:
            _save(given, [np.asarray(feed[info.name]) for info in self.inputs])
            self._ask(
                {"given": str(given), "made": str(made), "ratio": None if ratio is None else str(ratio)}
            )
            with np.load(made, allow_pickle=False) as stored:
                return {info.name: stored[f"v{i}"] for i, info in enumerate(self.outputs)}
        except TsmergeError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise UnsupportedError(f"{self._path}: its outputs cannot be read ({error})") from None
        finally:
            given.unlink(missing_ok=True)
            made.unlink(missing_ok=True)

    def _ask(self, request: dict[str, Any]) -> Answer:
        with self._lock:
            if self._child is None:
                limits = Limits.for_file(self._path.stat().st_size)
                self._child = Child(f"{__name__}:task", str(self._path), limits).__enter__()
                self._end = weakref.finalize(self, self._child.__exit__)
            try:
                return self._child.ask({"path": str(self._path), "settings": dict(self._settings), **request})
            except UnsupportedError:
                assert self._end is not None
                self._end()
                self._child = None
                raise


def first_open(path: Path) -> None:
    """Let ONNX Runtime open a graph apart first; bundles of others are validated, too.

    Raises:
        UnsupportedError: it did not open there.
    """
    if isolated.inside or risk(read_model(path)) is None:
        return
    GraphApart(path, {"threads": 1})


_open: dict[str, Any] = {}


def task(request: dict[str, Any]) -> Answer:
    """The task of a :class:`~tsmerge_export.untrusted.isolated.Child`: open a graph; run it where there is input."""
    from tsmerge_export.backends.onnxruntime.session import GraphSession

    if not _open:
        _open["session"] = GraphSession(request["path"], **request["settings"])
    session: GraphSession = _open["session"]
    if "given" not in request:
        ends = {
            key: [(info.name, info.dtype, list(info.dims)) for info in values]
            for key, values in (("inputs", session.inputs), ("outputs", session.outputs))
        }
        return ends | {"ratio": None if session.default_ratio is None else str(session.default_ratio)}
    with np.load(request["given"], allow_pickle=False) as stored:
        feed = {info.name: stored[f"v{i}"] for i, info in enumerate(session.inputs)}
    found = session.run(feed, request["ratio"])
    for name, value in found.items():
        if not isinstance(value, np.ndarray) or value.dtype.hasobject:
            raise UnsupportedError(f"output {name[:80]!r} holds no numbers")
    made = Path(request["made"])
    _save(made, [found[info.name] for info in session.outputs])
    return {"bytes": made.stat().st_size}


def _save(path: Path, values: Iterable[NDArray[Any]]) -> None:
    arrays: dict[str, Any] = {
        f"v{i}": value for i, value in enumerate(values)
    }  # names of a file may be no names
    np.savez(path, **arrays)
