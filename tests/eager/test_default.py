"""What merges when nobody says how much: the amount by hand, every family, and that all ways in say the same."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch

import tsmerge_export as tsm
from tests.models import BOLT, CONFIGS, tiny
from tsmerge_export import families
from tsmerge_export.eager.default import FILES, LEAST_TOKENS, ratio_of, settle, settle_layers
from tsmerge_export.families.base import SAFE
from tsmerge_export.settings.config import AUTO, MergeConfig

#: Of these the tiny models have at least 128 tokens; the others have fewer, or their family merges nothing by itself.
REASONS = {
    "autoformer": "auto-correlation",
    "chronos-2": "too few for a safe amount to pay",
    "chronos-bolt": "with 32 tokens of 256 steps, too few for a safe amount to pay",
    "chronos-t5": "single time steps",
    "informer": "no faster at any length",
    "mamba": "single time steps",
    "mamba2": "single time steps",
    "patch-mamba": "with 63 tokens of 256 steps",
    "patchtsmixer": "mixes patches",
    "patchtst": "too few for a safe amount to pay",
    "time-series-transformer": "single time steps",
    "timesfm": "too few for a safe amount to pay",
    "timesfm-2.5": "too few for a safe amount to pay",
}


def long_bolt() -> torch.nn.Module:
    """128 patches and a REG token."""
    config = copy.deepcopy(BOLT)
    config["chronos_config"]["context_length"] = 8 * LEAST_TOKENS
    return tiny("chronos-bolt", config=config)


@pytest.mark.parametrize(
    ("layers", "ratio"),
    [(1, "1/10"), (2, "1/10"), (3, "1/15"), (4, "1/20"), (6, "1/29"), (12, "1/58"), (24, "1/115")],
)
def test_the_deeper_the_less(layers: int, ratio: str) -> None:
    assert ratio_of(SAFE, layers) == Fraction(ratio)
    # By hand: what is left after all layers, and with one token more in each.
    n = int(ratio.partition("/")[2])
    assert (1 - 1 / n) ** layers >= 0.81 - 1e-12
    assert n == 10 or (1 - 1 / (n - 1)) ** layers < 0.81


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_family(name: str) -> None:
    family, model = families.get(name), tiny(name)
    found = settle(None, family, model)
    assert found.merge == MergeConfig("none")
    assert found.note is not None
    assert found.note.startswith("not merging: ")
    assert REASONS[name] in found.note
    assert "\n" not in found.note
    if family.merge_points(model).count:
        # Told to merge, it does, and by no more than is safe.
        asked = settle(MergeConfig("global", ratio=AUTO, min_tokens=7), family, model)
        layers = family.merge_points(model).count
        assert asked.merge == MergeConfig("global", ratio=ratio_of(SAFE, layers), min_tokens=7)
        assert (
            asked.note == f"merging {asked.merge.ratio} per layer: the default for {name}; --ratio to choose"
        )


def test_enough_tokens_merge() -> None:
    family, model = families.get("chronos-bolt"), long_bolt()
    assert settle(None, family, model).merge == MergeConfig("local", k=1, ratio="1/10")
    # What is given stays.
    for given in (MergeConfig(), MergeConfig("none"), MergeConfig("dynamic"), MergeConfig(r=3)):
        assert settle(given, family, model) == settle_layers(given, FILES, 2, "files")
        assert settle(given, family, model).merge is given
        assert settle(given, family, model).note is None


def test_layers_that_are_named_are_those_that_count() -> None:
    found = settle_layers(MergeConfig(ratio=AUTO, layers=(0, 2, 3)), FILES, 12, "files")
    assert found.merge.ratio == Fraction(1, 15)
    assert (
        settle_layers(None, FILES, 4, "files").note
        == "merging 1/20 per layer: the default for files; --ratio to choose"
    )


def test_an_open_setting_reads_back_and_merges_nothing_by_itself() -> None:
    merge = MergeConfig("pitome", ratio=AUTO)
    assert MergeConfig.from_dict(merge.to_dict()) == merge
    assert merge.open
    assert not MergeConfig("pitome").open
    with pytest.raises(ValueError, match="settle it first"):
        merge.amount(0, 1)
    with pytest.raises(tsm.errors.UsageError, match="no effect with --merge dynamic"):
        MergeConfig("dynamic", ratio=AUTO)
    with pytest.raises(tsm.errors.UsageError, match="exclude each other"):
        MergeConfig(r=1, ratio=AUTO)


def test_eager_models_take_the_same_default() -> None:
    model, series = long_bolt(), torch.randn(1, 8 * LEAST_TOKENS)
    with torch.no_grad(), tsm.merging(model, None) as run:
        model(series)
        assert [step.removed for step in run.steps] == [12, 11]
    few = tiny("chronos-bolt")
    with torch.no_grad(), tsm.merging(few, None) as run:
        few(series[:, :256])
        assert run.steps == []
    with torch.no_grad(), tsm.merging(few, MergeConfig(ratio=AUTO)) as run:
        few(series[:, :256])
        assert [step.removed for step in run.steps] == [3, 3]


def test_counting_does_not_see_what_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without merging 129 tokens, with it fewer: the default of a model does not depend on what it merges now."""
    model = tsm.apply(long_bolt(), MergeConfig(ratio="1/2"))
    tsm.apply(model, None)
    with torch.no_grad():
        model(torch.randn(1, 8 * LEAST_TOKENS))
    from tsmerge_export.eager.apply import current_run

    run = current_run(model)
    assert run is not None
    assert [step.removed for step in run.steps] == [12, 11]
