"""The merge problems of every method: what the property tests, the runtimes' tests and the fuzzer go over."""

from __future__ import annotations

import pytest

from tests.cases import Case, DynamicCase, DynamicOptionCase, OptionCase, SeriesCase, SeriesOptionCase
from tests.methods.pitome.cases import PitomeCase
from tests.methods.ssm.cases import SsmBranchCase, SsmCase

CASES: dict[str, type[Case]] = {
    "local": Case,
    "local-options": OptionCase,
    "dynamic": DynamicCase,
    "dynamic-options": DynamicOptionCase,
    "series": SeriesCase,
    "series-options": SeriesOptionCase,
    "pitome": PitomeCase,
    "ssm": SsmCase,
    "ssm-branches": SsmBranchCase,
}

#: Runs a test once for each method, as argument ``of``.
each_method = pytest.mark.parametrize("of", CASES.values(), ids=CASES.keys())
