"""Lagged families with their decoders."""

from __future__ import annotations

from tests.families.harness import Subject
from tests.models import AUTOFORMER, INFORMER

#: Three of up to twelve queries attend; the others get sums.
SPARSE = Subject(
    "informer",
    {
        **INFORMER,
        "attention_type": "prob",
        "prediction_length": 12,
        "sampling_factor": 1,
        "decoder_layers": 2,
    },
)

#: A decoder that gives all steps at once.
AT_ONCE = Subject("autoformer", AUTOFORMER)
