"""A file of one batch for any number of series: in parts, the last one filled up, what was filled in dropped again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.arrays import prepare
from tsmerge_export.backends.components import BundleSession, StepSession
from tsmerge_export.bundle import TensorInfo
from tsmerge_export.errors import UsageError

#: How the batch of a session that takes any is called.
_BATCH = "batch"


class AnyBatch:
    """One component whose inputs and outputs all begin with the batch; a row's outputs follow from that row alone.

    Args:
        session: takes ``batch`` rows, no more and no fewer.

    Attributes:
        inputs, outputs: of the session, with any batch.
    """

    def __init__(self, session: StepSession, batch: int) -> None:
        self._session, self._batch = session, batch
        self.inputs = tuple(_any(info) for info in session.inputs)
        self.outputs = tuple(_any(info) for info in session.outputs)

    def bound(self) -> Any:
        """Of the session itself, at its own batch."""
        return self._session.bound()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Outputs by name, as many rows as the inputs have. The last part is filled up with copies of its last row.

        Raises:
            UsageError: an input does not fit.
        """
        feed = prepare(inputs, self.inputs)
        rows = len(next(iter(feed.values())))
        parts = []
        for start in range(0, rows, self._batch):
            at = np.minimum(np.arange(start, start + self._batch), rows - 1)
            found = self._session.run({name: value[at] for name, value in feed.items()})
            parts.append({name: value[: rows - start] for name, value in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _any(info: TensorInfo) -> TensorInfo:
    return TensorInfo(info.name, info.dtype, (_BATCH, *info.dims[1:]))


def any_batch(session: BundleSession[Any], batch: int) -> BundleSession[Any]:
    """A bundle's session over files of one batch as one that takes any.

    Raises:
        UsageError: the files are not for that batch.
    """
    for name in session.components:
        if any(info.dims[:1] != (batch,) for info in (*session[name].inputs, *session[name].outputs)):
            raise UsageError(
                f"{session.bundle.path}: {name} does not take {batch} series a call, as its manifest says; export it "
                "again"
            )
    return BundleSession(
        session.bundle, {name: AnyBatch(session[name], batch) for name in session.components}
    )
