"""Commands under test whose verdicts are not what is tested."""

from __future__ import annotations

from functools import partial

import pytest

from tsmerge_export import api
from tsmerge_export.verify.checks import Checks


def quick_verdicts(patch: pytest.MonkeyPatch) -> None:
    """``export`` and ``validate`` take few cases and one timing, which no flag of theirs says."""
    patch.setattr(api, "Checks", partial(Checks, quick=True))


def untimed_verdicts(patch: pytest.MonkeyPatch) -> None:
    """``export`` and ``validate`` take all cases, but one timing."""
    patch.setattr(api, "Checks", partial(Checks, timed=False))
