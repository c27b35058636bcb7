"""Ranges of activations, found by running float32 files on calibration series."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from tsmerge_export.bundle.precision import CalibrationEntry
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.ranges import PERCENTILE, RangeCollector, read_by, with_outputs
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration


def ranges_on(
    calibration: Calibration,
    twins: Sequence[Built],
    models: Sequence[onnx.ModelProto],
    nodes: Sequence[Collection[str]],
    scratch: Path,
) -> list[dict[str, tuple[float, float]]]:
    """The ranges of what some products read, by component.

    Args:
        twins: all components in float32. models: the same as :func:`~tsmerge_export.precision.quantise.as_products`
            gives them. nodes: names of products of each. scratch: for files.

    Raises:
        UnsupportedError: a product is never reached.
    """
    folder = scratch / "calibration"
    folder.mkdir(exist_ok=True)
    watched, collectors = [], dict[str, RangeCollector]()
    for twin, model, own in zip(twins, models, nodes, strict=True):
        names, file = read_by(model, own), folder / twin.merged.name
        onnx_weights.write_model(with_outputs(model, names), file)
        watched.append(replace(twin, merged=file))
        collectors[twin.component.name] = RangeCollector(names)

    def shown(component: str, values: Mapping[str, Any]) -> None:
        collectors[component].see(values)

    calibration.observe(watched, shown)
    return [collectors[twin.component.name].ranges() for twin in twins]


def entry_of(calibration: Calibration) -> CalibrationEntry:
    """What a bundle says of the series."""
    return CalibrationEntry(
        data=calibration.data,
        windows=calibration.windows,
        columns=calibration.columns,
        percentile=PERCENTILE,
        sha256=calibration.digest,
    )
