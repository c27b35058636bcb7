"""The float32 noise of a graph: the reference in float32 against the same in float64, the same tokens merged.

See :mod:`tsmerge_export.verify.noise`, which does it for modules. The graph is run node by node anyway, so a weight is
moved and made float64 when a node asks for it, one at a time: nothing is copied as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from zlib import crc32

import numpy as np
import torch

from tsmerge_export.errors import first_line
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.nodes import Array, NodeRunner
from tsmerge_export.graphs.reference import Reference
from tsmerge_export.graphs.rows import by_row
from tsmerge_export.graphs.wide import WideRunner, widened
from tsmerge_export.merge.run import StepRecord
from tsmerge_export.verify import noise
from tsmerge_export.verify.noise import Feed, Noise
from tsmerge_export.verify.parity import beyond, compare_row, within
from tsmerge_export.verify.tolerances import Tolerance

# Bytes. A larger weight is read as it is: neither moved nor made float64, which would be three copies of it.
_LARGEST = 2**28


class Weights(Mapping[str, Array]):
    """Weights of a draw, made when they are asked for.

    Args:
        base: as they are. draw: 0 leaves them so. wide: float64 instead of float32.
    """

    def __init__(self, base: Mapping[str, Array], draw: int, *, wide: bool = False) -> None:
        self._base, self._draw, self._wide = base, draw, wide

    def __getitem__(self, name: str) -> Array:
        value = self._base[name]
        if value.nbytes > _LARGEST:
            return value
        if self._draw and value.ndim:  # a number alone is a constant of a formula: an exponent, an epsilon
            value = _moved(value, crc32(name.encode()) + self._draw)
        return widened(value) if self._wide else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


class GraphNoise:
    """Of one reference. Sessions for single nodes are made on first use, and kept.

    Attributes:
        fault: why it cannot be measured; None: it can, as far as is known.
    """

    def __init__(self, reference: Reference) -> None:
        self.fault: str | None = None
        self._reference = reference
        of_nodes = reference.model, reference.constants
        self._single = NodeRunner(*of_nodes, reference.threads, moving=True)
        self._wide = WideRunner(*of_nodes, self._single, reference.threads)

    def measure(self, inputs: Arrays, outputs: Arrays, steps: Sequence[StepRecord], rows: int) -> Noise:
        """The noise of every output of floats in every row.

        Args:
            inputs: of the graph. outputs, steps: what the reference made of them.
            rows: of the batch, as which outputs are compared.

        Returns:
            See :func:`tsmerge_export.verify.noise.measure`; 0 where it cannot be measured.
        """

        def pair(draw: int) -> tuple[Feed, Feed]:
            near = inputs if not draw else {name: _moved(inputs[name], draw) for name in inputs}
            single, own = (outputs, steps) if not draw else self._run(near, draw)
            double, _ = self._run(near, draw, own)
            return _tensors(single, rows), _tensors(double, rows)

        none = {name: np.zeros(rows) for name in outputs}
        try:
            return none | noise.of_draws(pair)
        except Exception as error:  # of ONNX Runtime, of numpy, of the rules that follow tokens
            self.fault = (
                f"its float32 noise cannot be measured, so that nothing passes by it: {first_line(error)}"
            )
            return none

    def _run(
        self, inputs: Arrays, draw: int, follow: Sequence[StepRecord] | None = None
    ) -> tuple[Arrays, list[StepRecord]]:
        """In float32; in float64 where a run is followed."""
        wide = follow is not None
        weights = Weights(self._reference.constants, draw, wide=wide)
        other = self._reference.otherwise(weights, self._wide if wide else self._single)
        feeds = {name: widened(value) for name, value in inputs.items()} if wide else inputs
        return other.traced(feeds, follow)


class Unmerged:
    """Compares what other forms of a graph compute on some inputs with what the graph does, beyond its own noise.

    Args:
        reference: the graph without merging. inputs: of the graph.
        tolerance: that what is compared may differ by in any case. noisy: it may by noise, too.
    """

    def __init__(
        self, reference: Reference, inputs: Arrays, tolerance: Tolerance, *, noisy: bool = True
    ) -> None:
        self._reference, self._inputs, self._tolerance, self._noisy = reference, inputs, tolerance, noisy
        self._noise: Noise | None = None
        self._beyond: str | None = None

    def fault(self, name: str, want: Array, got: Array) -> str | None:
        """What is wrong with a value of an output, as a whole; None: nothing."""
        if want.shape != got.shape:
            return f"shape {list(got.shape)}, expected {list(want.shape)}"
        fault, error, _ = compare_row(want, got, self._tolerance)
        if not (fault and error and self._noisy):
            return fault
        if self._noise is None:
            outputs, steps = self._reference.traced(self._inputs)
            found = GraphNoise(self._reference)
            self._noise, self._beyond = found.measure(self._inputs, outputs, steps, 1), found.fault
        own = self._noise[name][0]
        if own and within(want, got, self._tolerance, noise.FACTOR * own):
            return None
        return fault + (f"; {self._beyond}" if self._beyond else beyond(error, own))


def _moved(value: Array, seed: int) -> Array:
    if value.dtype != np.float32:
        return value
    return noise.move(torch.from_numpy(np.array(value)), torch.Generator().manual_seed(seed)).numpy()


def _tensors(values: Arrays, rows: int) -> Feed:
    return {
        name: torch.from_numpy(np.array(value))
        for name, value in by_row(values, rows).items()
        if value.dtype.kind == "f"
    }
