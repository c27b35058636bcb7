"""A tiny model of a family as a whole: its export, its files per merge setting, their verdicts; each made once."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.models import tiny
from tsmerge_export import families
from tsmerge_export.build import Built, merge_and_lower
from tsmerge_export.config import MergeConfig
from tsmerge_export.families.base import Component, Family
from tsmerge_export.onnx_export import export_component, prove_dynamic
from tsmerge_export.validate import parity
from tsmerge_export.validate.corpus import ENTRIES, Case
from tsmerge_export.validate.sessions import open_session

#: Neighbourhoods and ratios of local merging: each once, the other combinations among the slow tests.
_QUICK = {(1, "1/4"), (2, "1/10"), (5, "1/2"), ("global", "1/4")}
CORPUS = [
    pytest.param(MergeConfig(k=k, ratio=ratio), marks=[pytest.mark.slow] * ((k, ratio) not in _QUICK))
    for k in (1, 2, 5, "global")
    for ratio in ("1/10", "1/4", "1/2")
]

#: The other methods and options.
OTHERS = [
    MergeConfig(r=3, positions="compact"),
    MergeConfig(ratio="1/4", prop_attn=True),
    MergeConfig(ratio="1/4", metric="key", layers=(0,)),
    MergeConfig(ratio="1/4", causal=True, similarity="l2"),
    MergeConfig(method="dynamic", k=2, threshold=0.3),
    MergeConfig(method="pitome", ratio="1/4"),
    MergeConfig(method="ssm", ratio="1/4"),
]


@cache
class Whole:
    """A family's tiny model with random weights, and all that is made of it."""

    def __init__(self, name: str) -> None:
        self.family: Family = families.get(name)
        self.model: Any = tiny(name, seed=3).eval()
        self.component: Component = self.family.components(self.model)[0]
        self._folder = tempfile.TemporaryDirectory(prefix="tsmerge-tests-")
        self._plain: ir.Model | None = None
        self._built: dict[MergeConfig, Built] = {}

    @property
    def plain(self) -> ir.Model:
        """The export without merging; not to be changed."""
        if self._plain is None:
            self._plain = export_component(self.component, self.model)
        return self._plain

    def prove_dynamic(self) -> None:
        """See :func:`tsmerge_export.onnx_export.prove_dynamic`."""
        prove_dynamic(self.component, self.model, self.plain)

    def built(self, merge: MergeConfig) -> Built:
        """The files of a setting."""
        if merge not in self._built:
            folder = Path(tempfile.mkdtemp(dir=self._folder.name))
            self._built[merge] = merge_and_lower(
                self.component, self.plain, merge, inline=False, folder=folder, scratch=folder
            )
        return self._built[merge]

    def cases(self) -> list[Case]:
        """Batches 1, 2, 3 and 5 at lengths that are short, odd, no multiple of a patch, whole, and too long."""
        context = self.family.context(self.model)
        sizes = [
            (1, 1),
            (2, 5),
            (5, 37),
            (2, context // 2 + 1),
            (1, context),
            (3, context + context // 4 + 3),
        ]
        usual = [entry for entry in ENTRIES if not entry.degenerate]
        odd = [entry for entry in ENTRIES if entry.degenerate]
        pick = [usual[0], odd[0], usual[2], usual[3], odd[-1], usual[-1]]
        return [Case(entry, *size, seed=5) for entry, size in zip(pick, sizes, strict=True)]

    def parity(self, merge: MergeConfig, of: MergeConfig | None = None) -> parity.ParityReport:
        """The eager model merged by ``merge`` against the file of ``of`` (default: the same)."""
        file = self.built(of or merge).merged
        return parity.check(
            self.family, self.component, self.model, merge, file, cases=self.cases(), threads=1
        )

    def assert_parity(self, merge: MergeConfig) -> None:
        """Parity passes, every planned point merges, nothing is a barrier."""
        report = self.parity(merge)
        assert report.failures == []
        assert report.to_dict()["kept_mismatches"] == 0
        assert report.passed
        done = self.built(merge).report
        assert done.barriers == []
        points = self.family.merge_points(self.model).count
        assert len(done.merges) == (points if merge.layers is None else len(merge.layers))

    def assert_bit_identical(self, merge: MergeConfig) -> None:
        """A setting that removes nothing gives the bits of the unmerged file, over the cases and varied examples."""
        files = self.built(merge)
        assert len(files.report.merges) == self.family.merge_points(self.model).count
        plain, merged = (open_session(file, 1) for file in (files.unmerged, files.merged))
        feeds = [self.component.from_series(self.model, case.series()) for case in self.cases()]
        feeds += [self.component.example(self.model, batch, 90, seed=batch) for batch in (1, 4)]
        for feed in feeds:
            for want, got in zip(plain.run(None, feed), merged.run(None, feed), strict=True):
                assert want.shape == got.shape
                assert want.tobytes() == got.tobytes()

    def eager(self, feed: dict[str, np.ndarray], merge: MergeConfig | None = None) -> dict[str, np.ndarray]:
        """The original module's outputs, merged or not."""
        return parity.run_eager(self.component, self.model, merge or MergeConfig(method="none"), feed)[0]
