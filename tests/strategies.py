"""hypothesis strategies."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.cases import DTYPES, KINDS, PADDINGS, SPOILS, Case

#: Examples per property; ``TSMERGE_EXAMPLES`` raises it for a longer search, as ``make test-slow`` does.
EXAMPLES = int(os.environ.get("TSMERGE_EXAMPLES", "100"))

#: Reproducible, without deadlines: the first case of a session pays for making it.
properties = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def cases(tokens: int = 40, of: type[Case] = Case) -> st.SearchStrategy[Case]:
    """Problems of a method, of up to ``tokens`` tokens; shrinks to few tokens, plain values, the first setting."""
    return st.builds(
        of,
        batch=st.integers(1, 3),
        tokens=st.integers(1, tokens),
        features=st.integers(1, 6),
        metric_features=st.integers(0, 4),
        kind=st.sampled_from(KINDS),
        padding=st.sampled_from(PADDINGS),
        spoil=st.sampled_from(SPOILS),
        dtype=st.sampled_from(tuple(DTYPES)),
        setting=st.integers(0, len(of.table) - 1),
        seed=st.integers(0, 2**32 - 1),
    )
