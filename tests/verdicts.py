"""Parity of the trained artefacts, over some cases."""

from __future__ import annotations

from tests import artefacts
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.corpus import ENTRIES, Case

NAMES = list(artefacts.FAMILY)


def some_cases(name: str) -> list[Case]:
    """Batches 1, 2 and 5 at lengths that are short, odd, no multiple of a patch, and longer than in training."""
    context = artefacts.family(name).context(artefacts.model(name))
    sizes = [(1, 1), (2, 5), (5, 37), (2, context // 2 + 1), (1, context), (2, context + context // 4 + 3)]
    usual = [entry for entry in ENTRIES if not entry.degenerate]
    odd = [entry for entry in ENTRIES if entry.degenerate]
    pick = [usual[0], odd[0], usual[1], usual[2], odd[-1], usual[-1]]
    return [Case(entry, batch, length, seed=5) for entry, (batch, length) in zip(pick, sizes, strict=True)]


def proved(name: str, merge: MergeConfig) -> tuple[Built, parity.ParityReport]:
    """What is built of a trained model, and its parity, which must hold on :func:`some_cases`."""
    built = artefacts.built(name, merge)
    report = parity_of(name, merge, built, some_cases(name))
    assert report.failures == []
    assert report.passed
    return built, report


def parity_of(name: str, merge: MergeConfig, built: Built, cases: list[Case]) -> parity.ParityReport:
    """The eager model merged by ``merge`` against the files of ``built``."""
    return parity.check(
        artefacts.family(name), artefacts.component(name), artefacts.model(name), merge, built.merged,
        Checks(cases=cases, threads=1),
    )  # fmt: skip
