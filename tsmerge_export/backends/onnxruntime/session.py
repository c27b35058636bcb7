"""ONNX Runtime: sessions over the components of a bundle, or over a single ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tsmerge_export.backends import Providers
from tsmerge_export.backends.arrays import prepare
from tsmerge_export.backends.components import BundleSession, chosen_ratio, names_of
from tsmerge_export.backends.onnxruntime.apart import GraphApart
from tsmerge_export.backends.onnxruntime.bound import BoundGraph
from tsmerge_export.backends.onnxruntime.chosen import default_of
from tsmerge_export.backends.onnxruntime.place import Place, installed
from tsmerge_export.backends.ratio import value_of
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError, first_line
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.untrusted import isolated
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_scan import check_file
from tsmerge_export.untrusted.onnx_wire import read_model

if TYPE_CHECKING:
    import onnxruntime

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class GraphSession:
    """One ONNX file in ONNX Runtime.

    A graph of which is not known that it ends, fits into memory and crashes no runtime
    (:mod:`tsmerge_export.untrusted.onnx_risk`) is opened and run in a process of its own, with limits.

    Args:
        path: the file. A bundle's hashes say that it is as it was written, not who wrote it.
        threads: threads inside an operator, >= 1; operators run one after another.
        providers: see :func:`~.place.check_providers`.
        options: ONNX Runtime session options to start from (profiling, optimisation level); they reach no other
            process, so that with them every graph is run in this one.
        plugin: the library of native operators, see :mod:`tsmerge_export.backends.onnxruntime.native`;
            for the CPU alone, or for CUDA's provider in front.

    Attributes:
        inputs, outputs: name, dtype and dims of each; the ratio is not among them.
        default_ratio: of a file whose ratio is chosen at run time, what it is where nobody chooses; None for all
            others.

    Raises:
        UsageError: a bad argument, the file is missing, or its weights lie elsewhere.
        UnsupportedError: it is larger than it looks, or ONNX Runtime cannot load the file or the library.
        MissingDependencyError: ONNX Runtime or a provider is not installed, or does not start; or the library does not
            exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int | None = None,
        providers: Providers | None = None,
        options: onnxruntime.SessionOptions | None = None,
        plugin: str | Path | None = None,
    ) -> None:
        ort = installed()
        own_options = options is not None
        options = ort.SessionOptions() if options is None else options
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised; its coloured lines say the same once more
        if threads is not None:
            if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
                raise UsageError(f"threads {threads!r} must be a whole number of at least 1")
            options.intra_op_num_threads = threads
        if not Path(path).is_file():
            raise UsageError(f"{path}: no such file")
        place = Place.of(providers, plugin)
        found = check_file(Path(path))
        self._path = Path(path)
        self._session: Any = None
        self._apart: GraphApart | None = None
        self._why = None if isolated.inside or own_options else _risk(Path(path))
        if self._why is not None:
            self._apart = GraphApart(Path(path), {"threads": threads, **place.to_dict()})
            self.inputs, self.outputs = self._apart.inputs, self._apart.outputs
            self.default_ratio = self._apart.default_ratio
            return
        from tsmerge_export.backends.onnxruntime.bounded import session_class

        kind = session_class(name for _, name in found.kinds())
        try:
            self._session = place.start(kind, os.fspath(path), options)
            # Names that are no text raise, too.
            self.inputs = tuple(_info(arg) for arg in self.ort.get_inputs())
            self.outputs = tuple(_info(arg) for arg in self.ort.get_outputs())
            self.default_ratio = default_of(self._session)
        except TsmergeError:
            raise
        except Exception as error:  # ONNX Runtime has no common base class for its errors
            reason = first_line(error)
            raise UnsupportedError(
                f"{path}: ONNX Runtime {ort.__version__} cannot load it: {reason}"
            ) from error

    def __repr__(self) -> str:
        return called("GraphSession", **names_of(self))

    @property
    def ort(self) -> Any:
        """ONNX Runtime's session. Raises UnsupportedError where it is in another process."""
        if self._apart is not None:
            raise UnsupportedError(
                f"{self._path}: runs in a process of its own ({self._why}), and has no session here"
            )
        return self._session

    def bound(self) -> BoundGraph:
        """A run over arrays of the caller's, see :class:`~tsmerge_export.backends.components.Bound`. Raises as
        :attr:`ort`."""
        return BoundGraph(self.ort)

    def run(self, inputs: Mapping[str, Any], ratio: Any = None) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Args:
            inputs: name -> array of the dtype and shape in ``.inputs``, or what converts to it without loss.
            ratio: of a file whose ratio is chosen at run time, the share of the tokens that each merge removes, from 0
                (nothing merges) to 1/2: a number, a Fraction or text such as ``"1/4"``; None is ``.default_ratio``.
                What it means exactly is rule R14 of docs/specification.md.

        Returns:
            name -> array for every output.

        Raises:
            UsageError: an input does not fit, a ratio that is none or that the file does not take, or ONNX Runtime
                rejects the inputs' size.
            UnsupportedError: a graph that may do harm took too long, too much memory, or crashed.
        """
        feed = prepare(inputs, self.inputs)
        chosen = chosen_ratio(ratio, self.default_ratio, self._path)
        if self._apart is not None:
            return self._apart.run(feed, chosen)
        if chosen is not None:
            feed[INPUT] = value_of(chosen)
        try:
            values = self.ort.run(None, feed)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            reason = first_line(error)
            raise UsageError(f"the model does not run on {shapes}: {reason}") from error
        return {info.name: value for info, value in zip(self.outputs, values, strict=True)}


def _risk(path: Path) -> str | None:
    try:
        return risk(read_model(path))
    except (OSError, IndexError, ValueError):  # check_file has read it: it is being changed
        raise UsageError(f"{path}: truncated or not an ONNX file") from None


def _info(arg: Any) -> TensorInfo:
    # ONNX Runtime gives None for a dim without a name; a name of its own keeps it unconstrained.
    dims = tuple(dim if dim is not None else f"{arg.name}_dim{i}" for i, dim in enumerate(arg.shape))
    return TensorInfo(arg.name, _DTYPES.get(arg.type, arg.type), dims)


class Session(BundleSession[GraphSession]):
    """A bundle in ONNX Runtime, one graph session per component."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        providers: Providers | None = None,
        files: Mapping[str, Path] | None = None,
        plugin: str | Path | None = None,
    ) -> None:
        files = files or {}
        sessions = {
            component.name: GraphSession(
                files.get(component.name, component.file),
                threads=threads,
                providers=providers,
                plugin=plugin,
            )
            for component in bundle.components
        }
        super().__init__(bundle, sessions)
