"""What every family is tested for: one tiny random model, parity over the settings, bit identity, a clean removal."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tsmerge_export as tsm
from tests.exports import export_component
from tests.models import tiny
from tsmerge_export import families
from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.bundle import BundleWriter
from tsmerge_export.bundle.manifest import Described
from tsmerge_export.compile.build import merge_and_lower
from tsmerge_export.compile.onnx_export import prove_dynamic
from tsmerge_export.compile.shared_weights import share
from tsmerge_export.families.base import Component, Family
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case

_FOLDER = tempfile.TemporaryDirectory(prefix="tsmerge-tests-")

#: Every method, every k and ratio of the corpus once, and the options that change what follows a merge.
SETTINGS = [
    MergeConfig(k=1, ratio="1/4"),
    MergeConfig(k=2, ratio="1/10"),
    MergeConfig(k=5, ratio="1/2"),
    MergeConfig(k="global", ratio="1/4"),
    MergeConfig(method="global", ratio="1/3", similarity="dot", schedule="linear"),
    MergeConfig(r=3, layers=(1,), positions="compact", causal=True, similarity="l2"),
    MergeConfig(method="dynamic", threshold=0.4, k=1),
    MergeConfig(method="dynamic", threshold=0.7, k="global", similarity="l2"),
    MergeConfig(method="pitome", ratio="1/4"),
    MergeConfig(method="ssm", ratio="1/4"),
    MergeConfig(k=2, ratio="runtime:1/4"),
]
#: Neighbourhoods and ratios of local merging: each once, the other combinations among the slow tests.
_QUICK = {(1, "1/4"), (2, "1/10"), (5, "1/2"), ("global", "1/4")}
CORPUS = [
    pytest.param(MergeConfig(k=k, ratio=ratio), marks=[pytest.mark.slow] * ((k, ratio) not in _QUICK))
    for k in (1, 2, 5, "global")
    for ratio in ("1/10", "1/4", "1/2")
]
#: The other methods and options, beside :data:`CORPUS`.
OTHERS = [
    MergeConfig(r=3, positions="compact"),
    MergeConfig(ratio="1/4", prop_attn=True),
    MergeConfig(ratio="1/4", metric="key", layers=(0,)),
    MergeConfig(ratio="1/4", causal=True, similarity="l2"),
    MergeConfig(method="dynamic", k=2, threshold=0.3),
    MergeConfig(method="pitome", ratio="1/4"),
    MergeConfig(method="ssm", ratio="1/4"),
    MergeConfig(ratio="runtime:1/4"),
]
#: What needs attention.
WITH_ATTENTION = [
    MergeConfig(ratio="1/4", metric="key"),
    MergeConfig(ratio="1/4", k=2, prop_attn=True),
    MergeConfig(method="dynamic", threshold=0.4, metric="key", prop_attn=True),
]
#: All merge nodes are there, and none removes anything.
NOTHING = [
    MergeConfig(k=1, ratio="1/2", min_tokens=100_000),
    MergeConfig(k=5, ratio="1/2", min_tokens=100_000),
    MergeConfig(k="global", ratio="1/2", min_tokens=100_000, positions="compact", prop_attn=True),
    MergeConfig(method="dynamic", threshold=-1, min_tokens=100_000),
    MergeConfig(method="pitome", ratio="1/2", min_tokens=100_000),
]


def describe(merge: Any) -> str:
    """The id of a setting in a test's name."""
    return merge.describe() if isinstance(merge, MergeConfig) else str(merge)


@dataclass
class Subject:
    """One tiny model of a family, with random weights; ``config`` is that of ``tests/models.py`` unless given."""

    family_name: str
    config: dict[str, Any] | None = None
    seed: int = 3
    _built: dict[MergeConfig, Built] = field(default_factory=dict)
    _bundles: dict[MergeConfig, Path] = field(default_factory=dict)
    _others: dict[str, ir.Model] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        """Its family."""
        return families.get(self.family_name)

    @cached_property
    def model(self) -> Any:
        """The original eager module; tests must not change it."""
        return tiny(self.family_name, self.seed, self.config)

    @property
    def component(self) -> Component:
        """The component that merges."""
        return self.family.components(self.model)[0]

    @cached_property
    def plain(self) -> ir.Model:
        """Its export without merging."""
        return export_component(self.component, self.model)

    def built(self, merge: MergeConfig) -> Built:
        """The files of one merge setting."""
        if merge not in self._built:
            folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
            self._built[merge] = merge_and_lower(
                self.component, self.plain, merge, inline=False, folder=folder, scratch=folder
            )
        return self._built[merge]

    def bundle(self, merge: MergeConfig) -> Path:
        """A bundle of all components, as an export writes it, without verdicts."""
        if merge not in self._bundles:
            output, none = Path(tempfile.mkdtemp(dir=_FOLDER.name)) / "bundle", MergeConfig(method="none")
            with BundleWriter(output) as writer:
                parts = [
                    merge_and_lower(
                        part, self.plain if part.name == self.component.name else self._rest(part.name),
                        merge if part.mergeable else none, inline=False, folder=writer.path, scratch=writer.scratch,
                    )
                    for part in self.family.components(self.model)
                ]  # fmt: skip
                share([part.merged for part in parts], writer.path)
                described = Described(
                    family=self.family_name,
                    merge=merge.to_dict(),
                    components=tuple(part.entry() for part in parts),
                    pipeline=self.family.pipeline(self.model),
                )
                self._bundles[merge] = writer.commit(described).path
        return self._bundles[merge]

    def _rest(self, name: str) -> ir.Model:
        """The export of another component than the first."""
        if name not in self._others:
            part = next(part for part in self.family.components(self.model) if part.name == name)
            self._others[name] = export_component(part, self.model)
        return self._others[name]

    def cases(self) -> list[Case]:
        """Batches 1, 2, 3 and 5 at lengths that are short, odd, no multiple of a patch, and beyond the context."""
        context = self.family.context(self.model)
        sizes = [
            (1, 1),
            (2, 5),
            (5, 37),
            (2, context // 2 + 1),
            (2, context // 2 + 2),
            (1, context),
            (3, context + context // 4 + 3),
        ]
        usual = [entry for entry in ENTRIES if not entry.degenerate]
        odd = [entry for entry in ENTRIES if entry.degenerate]
        pick = [usual[0], odd[0], *usual[1:4], odd[-1], usual[-1]]
        return [
            Case(entry, batch, length, seed=5) for entry, (batch, length) in zip(pick, sizes, strict=True)
        ]

    def parity(
        self, merge: MergeConfig, of: MergeConfig | None = None, cases: Sequence[Case] | None = None
    ) -> parity.ParityReport:
        """The eager model merged by ``merge`` against the file made with ``of``, by default the same."""
        return parity.check(
            self.family, self.component, self.model, merge, self.built(of or merge).merged,
            Checks(cases=self.cases() if cases is None else cases, threads=1),
        )  # fmt: skip

    def assert_parity(self, merge: MergeConfig, barriers: Sequence[str] = ()) -> None:
        """It passes, with a merge in every layer asked for, and the ops of ``barriers``."""
        report = self.parity(merge)
        assert report.failures == []
        assert report.to_dict()["kept_mismatches"] == 0
        assert report.passed
        built, points = self.built(merge), self.family.merge_points(self.model).count
        expected = points if merge.layers is None else len(merge.layers)
        assert len(built.report.merges) == expected - (merge.schedule == "linear")
        assert [barrier.op_type for barrier in built.report.barriers] == list(barriers)

    def assert_bit_identical(self, merge: MergeConfig) -> None:
        """Every output has the bits of the unmerged file's, and so has the eager model with hooks."""
        built = self.built(merge)
        assert len(built.report.merges) == self.family.merge_points(self.model).count
        plain, merged = (open_session(file, 1, timed=True) for file in (built.unmerged, built.merged))
        feeds = [self.component.from_series(self.model, case.series()) for case in self.cases()]
        feeds += [self.component.example(self.model, batch, 90, seed=batch) for batch in (1, 4)]
        for feed in feeds:
            for want, got in zip(plain.run(None, feed), merged.run(None, feed), strict=True):
                assert want.shape == got.shape
                assert want.tobytes() == got.tobytes()
            tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
            with torch.no_grad():
                before = self.component.eager(self.model, tensors)
                with tsm.merging(self.model, merge) as run:
                    after = self.component.eager(self.model, tensors)
                    assert all(step.removed == 0 for step in run.steps)
            assert all(torch.equal(before[name], after[name]) for name in before)

    def assert_dynamic_and_removable(self) -> None:
        """The plain export runs at other sizes; gradients flow through merging; removing it leaves no trace."""
        prove_dynamic(self.component, self.model, self.plain)
        feed = self.component.from_series(self.model, self.cases()[2].series())
        tensors = {name: torch.from_numpy(value) for name, value in feed.items()}
        with torch.no_grad():
            before = self.component.eager(self.model, tensors)
        tsm.apply(self.model, MergeConfig(ratio="1/4"))
        tsm.apply(self.model, MergeConfig(ratio="1/3"))
        try:
            merged = self.component.eager(self.model, tensors)
            sum(value.square().sum() for value in merged.values() if value.requires_grad).backward()  # type: ignore[union-attr]
            seen = [
                p.grad
                for name, p in self.model.named_parameters()
                if (".layers." in name or ".block." in name) and p.grad is not None
            ]
            assert seen
            assert all(torch.isfinite(grad).all() for grad in seen)
        finally:
            tsm.remove(self.model)
            self.model.zero_grad(set_to_none=True)
        same = [
            merged[name].shape == value.shape and torch.equal(merged[name], value)
            for name, value in before.items()
        ]
        assert not all(same)
        with torch.no_grad():
            after = self.component.eager(self.model, tensors)
        assert all(torch.equal(before[name], after[name]) for name in before)

    def eager(self, feed: dict[str, np.ndarray], merge: MergeConfig | None = None) -> dict[str, np.ndarray]:
        """The original module's outputs, merged or not."""
        return parity.run_eager(self.component, self.model, merge or MergeConfig(method="none"), feed)[0]

    def forecast(self, series: np.ndarray) -> np.ndarray:
        """The family's forecast through the unmerged file."""
        session = open_session(self.built(MergeConfig(method="none")).merged, 1)
        names = [spec.name for spec in self.component.outputs]
        return self.family.forecast(
            self.model, lambda feed: dict(zip(names, session.run(names, feed), strict=True)), series
        )
