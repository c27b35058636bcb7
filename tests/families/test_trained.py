"""What weights were trained for stays with them: through every family, file format and upstream's own loaders."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from chronos import BaseChronosPipeline

import tsmerge_export as tsm
from tests.models import CONFIGS, tiny
from tsmerge_export import families
from tsmerge_export.families.trained import mark, trained_of
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.trained import Trained

TRAINED = Trained(MergeConfig("local", k=1, ratio="1/2"), (Fraction(1, 4), Fraction(1, 2)), 1.04)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_config_and_pt_file_of_every_family(name: str, tmp_path: Path) -> None:
    family, model = families.get(name), tiny(name)
    assert trained_of(family, model) is None
    mark(model, TRAINED)
    loaded = tsm.load_model(tsm.save_checkpoint(model, tmp_path / "model.pt"))
    assert loaded.trained == TRAINED
    assert trained_of(family, loaded.model) == TRAINED
    mark(model, None)
    assert trained_of(family, model) is None
    assert "tsmerge" not in family.config_of(model)


@pytest.mark.parametrize("name", ["chronos-bolt", "chronos-t5", "patchtst"])
def test_folders_and_upstreams_own_loader(name: str, tmp_path: Path) -> None:
    family, model = families.get(name), tiny(name)
    mark(model, TRAINED)
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    assert json.loads((tmp_path / "config.json").read_text())["tsmerge"] == TRAINED.to_dict()
    assert tsm.load_model(tmp_path).trained == TRAINED
    upstream = type(model).from_pretrained(tmp_path)  # type: ignore[attr-defined]
    assert trained_of(family, upstream) == TRAINED
    if name.startswith("chronos"):
        pipeline = BaseChronosPipeline.from_pretrained(str(tmp_path), device_map="cpu")
        assert trained_of(*families.for_model(pipeline)) == TRAINED


def test_a_hostile_entry_stops_loading_before_anything_is_built(tmp_path: Path) -> None:
    model = tiny("chronos-bolt")
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tsmerge": {"merge": 3}}))
    with pytest.raises(tsm.errors.UsageError, match=r"config\.json: tsmerge\.merge is 3, expected an object"):
        tsm.load_model(tmp_path)
