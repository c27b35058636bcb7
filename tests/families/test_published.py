"""Every family once at a size that people use: published widths and contexts, random weights, parity with merging.

Layers are cut to two (a second one sees merged tokens), and of the corpus only the entries at the longest lengths and a
short one run: what width and length do to float32 is what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from tsmerge_export import families
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.eager.apply import plan_of
from tsmerge_export.families.base import Family
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, generation, parity
from tsmerge_export.verify.checks import Checks

pytestmark = pytest.mark.slow
_LAYERS = 2
_NAMES = ("num_layers", "num_hidden_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
#: As published, except where it says so; docs/families.md has the names.
CONFIGS: dict[str, dict[str, Any]] = {
    name: dict(family.published.config)
    for name, family in ((name, families.get(name)) for name in families.names())
    if family.published is not None
}
CASES = [
    *CONFIGS,
    "time-series-transformer with one variate, scaled by its deviation",
    "informer with one variate, scaled by its deviation",
]


def cut(config: dict[str, Any], family: str) -> dict[str, Any]:
    """Two layers, of every stack."""
    out = {**config, **{name: _LAYERS for name in _NAMES if name in config}}
    if family.startswith("timesfm"):
        out["num_hidden_layers"] = _LAYERS
    if "backbone" in out:
        out["backbone"] = {**out["backbone"], "num_hidden_layers": _LAYERS}
    return out


def cases(context: int) -> Iterable[corpus.Case]:
    """Every entry at two thirds of the context, and noise with seasons at a short length and at the whole context.

    Few rows: memory grows with rows times length, with Mamba-2 by 6 MB for each 256 tokens in each of its tensors.
    """
    longest = context * 2 // 3 | 1
    for entry in corpus.ENTRIES:
        yield corpus.Case(entry, 2, longest, 0)
    yield corpus.Case(corpus.ENTRIES[1], 2, context // 5 | 1, 0)
    yield corpus.Case(corpus.ENTRIES[1], 1, context + context // 4 + 1, 0)


@pytest.mark.parametrize("name", CASES)
def test_parity_at_a_published_size(name: str, tmp_path: Path) -> None:
    chosen, _, scaled = name.partition(" with ")
    family: Family = families.get(chosen)
    config = cut(CONFIGS[chosen], chosen) | ({"scaling": "std"} if scaled else {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = family.build(config).eval()
    merges = family.merge_points(model).count > 0
    merge = MergeConfig(ratio="1/4") if merges else MergeConfig(method="none")
    compilation = Compilation(CheckpointSource.load(model), merge)
    built = [compilation.merged(component, tmp_path) for component in compilation.source.components]
    todo = list(cases(family.context(model)))
    reports = [
        parity.check(
            family, built[0].component, model, merge, built[0].merged, Checks(cases=todo),
            plan=plan_of(family, model, merge),
        )
    ]  # fmt: skip
    if len(built) > 1 and family.generation(model) is not None:
        reports.append(generation.check(family, model, merge, built, Checks(cases=todo[:3] + todo[-1:])))
    found = parity.combine(reports).to_dict()
    shown = ("rows", "decision_flips", "max_rel", "noisy_rows", "times_noise", "warnings")
    print(name, {key: found[key] for key in shown})
    assert found["passed"], found["failures"]
    assert found["rows"] > 2 * found["decision_flips"]
