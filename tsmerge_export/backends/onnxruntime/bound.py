"""Runs of ONNX Runtime over arrays that are bound once."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class BoundGraph:
    """A :class:`~tsmerge_export.backends.components.Bound` in ONNX Runtime, on the CPU's memory."""

    def __init__(self, session: Any) -> None:
        self._session, self._binding = session, session.io_binding()
        self._arrays: dict[str, NDArray[Any]] = {}  # the binding knows addresses only

    def bind(self, name: str, array: NDArray[Any], *, output: bool = False) -> None:
        """See :class:`Bound`."""
        bind = self._binding.bind_output if output else self._binding.bind_input
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._arrays[name] = array

    def run(self) -> None:
        """See :class:`Bound`."""
        self._session.run_with_iobinding(self._binding)
