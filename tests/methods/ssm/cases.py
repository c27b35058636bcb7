"""Random problems of token reduction for state-space models, drawn as those of local merging."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from tests.cases import AMOUNTS, Case
from tests.methods import oracle
from tests.methods.ssm import oracle as ssm_oracle
from tsmerge_export.merge import Merged, ssm_merge

SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"prune": prune, **amount} for prune in ((1, 2), (0, 1), (1, 1), (2, 7)) for amount in AMOUNTS
)


#: The same with hidden states and residual apart.
BRANCH_SETTINGS = tuple(
    {**setting, "residual": residual}
    for number, setting in enumerate(SETTINGS)
    for residual in (((0, 1), (1, 1), (1, 2)) if number % 2 else ((1, 3), (0, 1)))
)


@dataclass(frozen=True)
class SsmCase(Case):
    """One problem of token reduction for state-space models."""

    op_type: ClassVar[str] = "SsmMerge"
    table: ClassVar[tuple[dict[str, Any], ...]] = SETTINGS
    margin: ClassVar[float] = 1.5e-6  # a step of 2^-20, and noise

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the reference."""
        settings = super().settings
        settings["prune_share"] = Fraction(*settings.pop("prune"))
        if "residual" in settings:
            settings["residual_prune_share"] = Fraction(*settings.pop("residual"))
        return settings

    @property
    def attributes(self) -> dict[str, int | float]:
        """Attributes of the operator."""
        setting = self.table[self.setting]
        (num, den), (prune_num, prune_den) = setting["ratio"] or (0, 1), setting["prune"]
        names = ("min_tokens", "protect_first", "protect_last")
        return {
            "r": setting["r"] or 0,
            "ratio_num": num,
            "ratio_den": den,
            **{name: setting[name] for name in names},
            "prune_num": prune_num,
            "prune_den": prune_den,
            **dict(zip(("residual_num", "residual_den"), setting.get("residual", ()), strict=False)),
        }

    def reference(self) -> Merged:
        """What the package's reference makes of it."""
        return ssm_merge(*self.tensors(), **self.settings)

    def expected_row(self, x: np.ndarray, metric: np.ndarray, size: np.ndarray) -> oracle.Row:
        """What the naive oracle makes of one row, all float32."""
        return ssm_oracle.merge_row(x, metric, size, **self.settings)


class SsmBranchCase(SsmCase):
    """The same with a choice of their own for hidden states, the metric, and residual; x is the sum of both."""

    table = BRANCH_SETTINGS

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As of :class:`Case`, x of the metric's width."""
        residual, hidden, size = replace(self, metric_features=self.features).plain_arrays()
        with np.errstate(all="ignore"):
            x = (residual.astype(np.float32) + hidden.astype(np.float32)).astype(hidden.dtype)
        return x, hidden, size

    def plain_arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residual, hidden states and size."""
        return super().arrays()
