"""OpenVINO: sessions over the components of a bundle."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tsmerge_export.backends.arrays import prepare
from tsmerge_export.backends.common import entry_of
from tsmerge_export.backends.components import BundleSession, chosen_ratio, names_of
from tsmerge_export.backends.openvino.network import compile_file, installed, reason
from tsmerge_export.backends.ratio import default_in, value_of
from tsmerge_export.bundle import Bundle, TensorInfo
from tsmerge_export.console.one_line import called
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.run_time import INPUT
from tsmerge_export.untrusted.onnx_risk import risk
from tsmerge_export.untrusted.onnx_scan import check_file
from tsmerge_export.untrusted.onnx_wire import read_model


class NetworkSession:
    """One file in OpenVINO, as :class:`~tsmerge_export.backends.onnxruntime.session.GraphSession` is in ONNX Runtime.

    Args:
        file: .onnx, without functions. inputs, outputs: what it has, as the bundle or the family says.
        threads: of inference, >= 1; None is OpenVINO's choice.

    Raises:
        UsageError: a bad argument, or its weights lie elsewhere.
        UnsupportedError: OpenVINO cannot load it; or it is not known to end and to fit into memory, and OpenVINO is not
            run in a process of its own.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(
        self,
        file: Path,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        threads: int | None = None,
    ) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise UsageError(f"threads {threads!r} must be a whole number of at least 1")
        check_file(file)
        read = read_model(file)
        harm = risk(read)
        if harm is not None:
            raise UnsupportedError(
                f"{file.name}: {harm}; ONNX Runtime alone runs that, in a process of its own"
            )
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._name, self.default_ratio = file.name, default_in(read)
        self._network = compile_file(file, threads)
        self._request = self._network.create_infer_request()
        self._lock = threading.Lock()  # a request does one thing at a time

    def __repr__(self) -> str:
        return called("NetworkSession", **names_of(self))

    def run(self, inputs: Mapping[str, Any], ratio: Any = None) -> dict[str, NDArray[Any]]:
        """Run the file; see :meth:`GraphSession.run`."""
        # ONNX Runtime's int64 is a C type that numpy takes for equal and OpenVINO does not know.
        feed = {name: array.view(array.dtype.name) for name, array in prepare(inputs, self.inputs).items()}
        chosen = chosen_ratio(ratio, self.default_ratio, self._name)
        if chosen is not None:
            feed[INPUT] = value_of(chosen)
        with self._lock:
            try:
                found = self._request.infer(feed, share_inputs=True)
                return {info.name: found[info.name] for info in self.outputs}
            except Exception as error:  # one class for everything
                shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
                raise UsageError(f"the model does not run on {shapes}: {reason(error)}") from error

    def bound(self) -> BoundNetwork:
        """A run over arrays of the caller's, see :class:`~tsmerge_export.backends.components.Bound`."""
        return BoundNetwork(self._network.create_infer_request())


class BoundNetwork:
    """A :class:`~tsmerge_export.backends.components.Bound` in OpenVINO."""

    def __init__(self, request: Any) -> None:
        self._request, self._tensor = request, installed().Tensor

    def bind(self, name: str, array: NDArray[Any], *, output: bool = False) -> None:
        """See :class:`Bound`."""
        self._request.set_tensor(name, self._tensor(array, shared_memory=True))

    def run(self) -> None:
        """See :class:`Bound`."""
        self._request.infer()


class NetworksSession(BundleSession[NetworkSession]):
    """A bundle in OpenVINO, one session per component. Raises as :class:`NetworkSession`, and UsageError for a bundle
    that was made for another runtime."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        parts = entry_of(bundle.contents, "openvino").components
        sessions = {
            component.name: NetworkSession(
                bundle.file(parts[component.name].onnx), component.inputs, component.outputs, threads
            )
            for component in bundle.components
            if component.name in parts
        }
        super().__init__(bundle, sessions)
