"""The public names of the package."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import tsmerge_export as tsm
from tests.models import CHRONOS2, tiny
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify.data import rolling_windows


def test_no_submodule_hides_a_public_name() -> None:
    """Importing ``tsmerge_export.x`` sets the attribute ``x`` of the package: no function may have that name."""
    for module in pkgutil.iter_modules(tsm.__path__):
        importlib.import_module(f"tsmerge_export.{module.name}")
    for name in set(tsm.__all__) - {"merge"}:
        assert callable(getattr(tsm, name)), name
    assert tsm.merge.local_merge.__module__ == "tsmerge_export.methods.local.reference"


LONG = {
    **CHRONOS2,
    "chronos_config": {**CHRONOS2["chronos_config"], "context_length": 512, "max_output_patches": 128},
}


def test_the_default_series_is_long_enough_for_any_horizon(tmp_path: Path) -> None:
    """Upstream's horizon of 1,024 steps takes more rows than the sample has: it is generated for more of them."""
    model = tiny("chronos-2", config=LONG)
    source = CheckpointSource.load(model)
    table = source.table
    assert source.horizon == 1024
    assert table.name == "sample.csv, generated for 3072 rows"
    assert table.values.shape == (3072, 3) and np.isfinite(table.values).all()
    cut = rolling_windows(table, 512, 1024)
    assert cut.context.shape == (3, 1, 512) and (cut.deviation > 0.1).all()
    # Data of the user's own are theirs to mend.
    file = tmp_path / "short.csv"
    file.write_text("a\n" + "\n".join(str(i % 24) for i in range(2000)) + "\n")
    with pytest.raises(UsageError, match="2000 rows are too few; it takes 2048"):
        CheckpointSource.load(model, data=str(file))
    assert CheckpointSource.load(tiny("chronos-2")).table.name == "sample.csv"


@pytest.mark.slow
def test_export_with_a_long_horizon_and_no_data(tmp_path: Path) -> None:
    bundle = tsm.export(
        tiny("chronos-2", config=LONG), MergeConfig(ratio="1/4"), output=tmp_path / "b", threads=1
    )
    cost = bundle.verdicts["cost"]
    assert bundle.verdicts["parity"]["passed"]
    assert (cost["horizon"], cost["context"], cost["data"]) == (
        1024,
        512,
        "sample.csv, generated for 3072 rows",
    )
