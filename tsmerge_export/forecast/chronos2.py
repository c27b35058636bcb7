"""Chronos-2: quantiles of a whole horizon in one run; every series is a group of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.notes import note
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast.base import Floats
from tsmerge_export.forecast.quantile_models import QuantileForecaster

if TYPE_CHECKING:
    from tsmerge_export.forecast.frame import Panel


class Chronos2(QuantileForecaster):
    """A bundle of Chronos-2, univariate; see :func:`tsmerge_export.pipeline`."""

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        super().__init__(bundle, session, memory=memory, progress=progress)
        if not isinstance(self._settings.get("patch_size"), int):
            raise UsageError(f"{bundle.path}: its pipeline settings are incomplete; export it again")

    def _tell(self, panel: Panel) -> None:
        if panel.others:
            named = ", ".join(map(repr, panel.others[:8])) + (", ..." if len(panel.others) > 8 else "")
            note(
                f"columns that are not used: {named}; chronos-forecasting's Chronos-2 takes them for covariates, "
                "here each series is forecast from its own values"
            )

    def _part(self, context: Floats, steps: int) -> Floats:
        rows, patches = len(context), -(-steps // self._patch)
        found = self.session.run(
            {
                "context": context[:, None],
                "future": np.full((rows, 1, patches, self._patch), np.nan, np.float32),
                "series_mask": np.ones((rows, 1), np.float32),
            }
        )["quantiles"][:, 0]
        return found.reshape(rows, len(self._levels), -1)
