"""Encoders of the lagged families."""

from __future__ import annotations

from tests.families.harness import Subject
from tests.models import TST

PLAIN = Subject("time-series-transformer", TST)

WHOLE = Subject(
    "time-series-transformer",
    {
        **TST,
        "input_size": 2,
        "scaling": "std",
        "num_time_features": 0,
        "num_static_categorical_features": 2,
        "cardinality": [3, 5],
        "num_static_real_features": 1,
        "distribution_output": "normal",
    },
)
