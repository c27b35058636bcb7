"""Ranges of the values that products read: what their 8 bits span where the scale is fixed before the model runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tsmerge_export.console.missing import how_to_install
from tsmerge_export.console.quiet import no_logging
from tsmerge_export.errors import MissingDependencyError, UnsupportedError

#: So many per cent of the values lie within the range; of the others half on either side, and they are clipped.
PERCENTILE = 99.999
#: Values that are kept until their histograms are counted: at 4 bytes, a quarter of a gigabyte.
_HELD = 2**26
_BINS = 2048  # as ONNX Runtime's percentile calibrater has them

#: The lowest and the highest value, by name.
Ranges = Mapping[str, tuple[float, float]]


def read_by(model: onnx.ModelProto, nodes: Collection[str]) -> tuple[str, ...]:
    """The names of what some products read beside their weights, in the order of the graph, each once."""
    own = (node for node in model.graph.node if node.op_type == "MatMul" and node.name in nodes)
    return tuple(dict.fromkeys(node.input[0] for node in own))


def with_outputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy that has float32 values of the graph among its outputs, behind its own; inputs stay where they are."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    out.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in there
    )
    return out


class RangeCollector:
    """Ranges by ONNX Runtime's histograms, of values that come run by run, in any shape.

    Args:
        names: of the values that are wanted.

    Raises:
        MissingDependencyError: ONNX Runtime's quantiser is not installed.
    """

    def __init__(self, names: Collection[str]) -> None:
        with no_logging():
            try:
                from onnxruntime.quantization.calibrate import HistogramCollector
            except ImportError as error:
                raise MissingDependencyError(how_to_install(error.name or "onnxruntime")) from None
        self._histograms = HistogramCollector(
            method="percentile", symmetric=False, num_bins=_BINS, num_quantized_bins=_BINS, percentile=PERCENTILE,
            scenario="same",
        )  # fmt: skip
        self._waiting: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
        self._held, self._seen = 0, set[str]()

    def see(self, values: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Take values of a run by name; what is not wanted is passed over, and so are infinities and NaN."""
        for name, value in values.items():
            if name in self._waiting:
                finite = value[np.isfinite(value)]
                self._waiting[name].append(finite)
                self._held += finite.size
        if self._held > _HELD:
            self._count()

    def _count(self) -> None:
        """Many runs at once: the bins are as wide as the first values are far, and a histogram that must grow by
        far for later ones takes memory without end."""
        found = {name: np.concatenate(parts) for name, parts in self._waiting.items() if parts}
        found = {name: values for name, values in found.items() if values.size}
        with _in_silence():
            self._histograms.collect(found)
        self._seen |= set(found)
        self._waiting, self._held = {name: [] for name in self._waiting}, 0

    def ranges(self) -> dict[str, tuple[float, float]]:
        """What was found.

        Raises:
            UnsupportedError: a value never came.
        """
        self._count()
        never = sorted(set(self._waiting) - self._seen)
        if never:
            raise UnsupportedError(
                f"--precision int8-static: no calibration series reaches {never[0]}, so that its scale is not known; "
                "use int8, or name the product that reads it in --keep-precise"
            )
        with _in_silence():
            found = self._histograms.compute_collection_result() if self._seen else {}
        return {name: (float(found[name][0]), float(found[name][1])) for name in self._waiting}


def _in_silence() -> contextlib.redirect_stdout[io.StringIO]:
    """The histograms print how far they are."""
    return contextlib.redirect_stdout(io.StringIO())
