"""Which products a low precision hurts: each is tried alone, and as many kept at a higher one as a budget takes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from tsmerge_export.bundle.precision import ProductEffect, Sensitivity
from tsmerge_export.console.figures import change
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.precision.mix import mixed
from tsmerge_export.precision.products import Product
from tsmerge_export.precision.quantise import quantised
from tsmerge_export.precision.ranges import Ranges
from tsmerge_export.settings.precision import BUDGET, Precision
from tsmerge_export.typed import finite
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.calibration import Calibration
from tsmerge_export.verify.checks import Told


@dataclass(frozen=True)
class Part:
    """A component: its float32 file in the form of :func:`~tsmerge_export.precision.quantise.as_products`, and those
    of its products that may be quantised; the ranges of what these read, where they are fixed."""

    twin: Built
    model: onnx.ModelProto
    products: tuple[Product, ...]
    ranges: Ranges = field(default_factory=dict)


@dataclass(frozen=True)
class _Unit:
    """The products of one weight, which is stored once. ``part`` is the number of the component."""

    part: int
    products: tuple[Product, ...]

    @property
    def weights(self) -> int:
        return self.products[0].rows * self.products[0].columns


class _Trials:
    """Files of choices, and what they do."""

    def __init__(
        self,
        parts: Sequence[Part],
        precision: Precision,
        calibration: Calibration,
        scratch: Path,
        told: Told,
    ) -> None:
        self._parts, self._calibration, self._told = parts, calibration, told
        self._scratch = scratch / "sensitivity"
        self._scratch.mkdir(exist_ok=True)
        self._low, self._high = self._all_at(precision), None
        if precision.raised is not None:
            self._high = self._all_at(precision.raised)
        self._done, self.all = 0, 1

    def _all_at(self, precision: Precision) -> list[onnx.ModelProto]:
        return [
            quantised(part.model, precision, [product.node for product in part.products], part.ranges)
            for part in self._parts
        ]

    def bound(self, low: Collection[_Unit], high: Collection[_Unit]) -> float:
        """What the error may rise by with these at the low precision, and these at the higher one."""
        return self._noted(self._calibration.bound(self._built(low, high)))

    def moved(self, one: _Unit) -> float:
        """How far the outputs move with this one alone below float32."""
        return self._noted(self._calibration.moved(self._built([one], [])))

    def _noted(self, value: float) -> float:
        self._done += 1
        self._told(self._done, self.all)
        return value

    def _built(self, low: Collection[_Unit], high: Collection[_Unit]) -> list[Built]:
        out = []
        for index, part in enumerate(self._parts):
            model, touched = part.model, False
            for units, at in ((high, self._high), (low, self._low)):
                nodes = {product.node for unit in units if unit.part == index for product in unit.products}
                if nodes and at is not None:
                    model, touched = mixed(model, at[index], nodes), True
            file = part.twin.merged
            if touched:
                file = self._scratch / file.name
                onnx_weights.write_model(model, file)
            out.append(replace(part.twin, merged=file))
        return out


def find_sensitive(
    parts: Sequence[Part], precision: Precision, calibration: Calibration, scratch: Path, told: Told
) -> tuple[list[set[str]], Sensitivity]:
    """The nodes that do not get the low precision, by component, and how they were found.

    With all products at it the error may be within the limit already. Else each is tried alone. What moves the
    forecasts most for its weights is kept first (errors of products add up by their squares, about), as many as it
    takes.

    Args:
        parts: all components. calibration: what choices are tried on. scratch: for files of choices.

    Raises:
        UnsupportedError: no choice stays within the limit.
    """
    limit = BUDGET if precision.max_increase is None else precision.max_increase
    units = list(_units(parts))
    trials = _Trials(parts, precision, calibration, scratch, told)
    before = trials.bound(units, [])
    said = Sensitivity(
        budget_percent=limit,
        data=calibration.data,
        windows=calibration.windows,
        columns=calibration.columns,
        before_percent=finite(before),
        after_percent=finite(before),
        kept_at=precision.kept_at,
    )
    if before <= limit:
        return [set() for _ in parts], said
    trials.all += len(units) + math.ceil(math.log2(len(units) + 1))
    moved = {unit: trials.moved(unit) for unit in units}
    order = sorted(units, key=lambda unit: -(moved[unit] ** 2) / unit.weights)
    few, enough, after = (
        0,
        len(order),
        math.inf,
    )  # so many are too few; so many leave nothing at the low precision
    while enough - few > 1:
        half = (few + enough) // 2
        found = trials.bound(order[half:], order[:half])
        if found <= limit:
            enough, after = half, found
        else:
            few = half
    if enough == len(order):
        raise UnsupportedError(
            f"--keep-precise auto: {precision.kind} may cost more than {limit:g} % ({_bound(before)} with all products "
            f"at it) whatever is kept at {precision.kept_at}; give a larger --max-increase, more rows in "
            "--data, or a higher precision"
        )
    kept: list[set[str]] = [set() for _ in parts]
    for unit in order[:enough]:
        kept[unit.part] |= {product.node for product in unit.products}
    effects = tuple(
        ProductEffect(
            component=parts[unit.part].twin.component.name,
            node=product.node,
            module=product.scopes[-1] if product.scopes else "",
            weights=unit.weights,
            moved=finite(moved[unit]),
            kept=number < enough,
        )
        for number, unit in enumerate(order)
        for product in unit.products
    )
    return kept, replace(said, after_percent=finite(after), products=effects)


def _units(parts: Sequence[Part]) -> list[_Unit]:
    found: dict[tuple[int, str], list[Product]] = {}
    for index, part in enumerate(parts):
        for product in part.products:
            found.setdefault((index, product.weight), []).append(product)
    return [_Unit(index, tuple(products)) for (index, _), products in found.items()]


def _bound(value: float) -> str:
    return change(value) if math.isfinite(value) else "an unknown amount"
