"""Random problems of PiToMe, drawn as those of local merging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tests.cases import AMOUNTS, EXACT, Case
from tests.methods import oracle
from tests.methods.pitome import oracle as pitome_oracle
from tsmerge_export.methods.combine import Merged
from tsmerge_export.methods.pitome import ENERGIES
from tsmerge_export.methods.pitome.reference import pitome_merge

SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"margin": margin, "alpha": alpha, "energy": energy, **amount}
    for margin, alpha, energy in (
        (0.9, 1.0, "elu"),
        (0.0, 1.0, "elu"),
        (-0.5, 0.0, "elu"),
        (0.45, 3.5, "elu"),
        (1.0, 0.5, "elu"),
        (0.6, 1.0, "gaussian"),
        (1.0, 1.0, "gaussian"),
    )
    for amount in AMOUNTS
)


@dataclass(frozen=True)
class PitomeCase(Case):
    """One problem of PiToMe. What depends on float noise, the oracle says row by row."""

    op_type: ClassVar[str] = "PitomeMerge"
    table: ClassVar[tuple[dict[str, Any], ...]] = SETTINGS
    noisy: ClassVar[bool] = True  # below the margin there is an exponential

    @property
    def attributes(self) -> dict[str, int | float]:
        """Attributes of the operator."""
        setting = self.table[self.setting]
        num, den = setting["ratio"] or (0, 1)
        names = ("min_tokens", "protect_first", "protect_last", "margin", "alpha")
        return {
            "r": setting["r"] or 0,
            "ratio_num": num,
            "ratio_den": den,
            "energy": ENERGIES.index(setting["energy"]),
            **{name: setting[name] for name in names},
        }

    def reference(self) -> Merged:
        """What the package's reference makes of it."""
        return pitome_merge(*self.tensors(), **self.settings)

    def expected_row(self, x: np.ndarray, metric: np.ndarray, size: np.ndarray) -> oracle.Row:
        """What the naive oracle makes of one row, all float32."""
        return pitome_oracle.merge_row(x, metric, size, exact=self.kind in EXACT, **self.settings)
