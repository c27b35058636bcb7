"""Models of families whose configs say more than the tiny ones."""

from __future__ import annotations

from typing import Any

from tests.families.harness import Subject
from tests.models import BOLT


def patched(size: Any, stride: Any, **more: Any) -> dict[str, Any]:
    own = {**BOLT["chronos_config"], "input_patch_size": size, "input_patch_stride": stride, **more}
    return {**BOLT, "chronos_config": own}


#: A context that is no multiple of the patch, a horizon that is none of the stride.
OVERLAPPING = Subject("chronos-bolt", patched(16, 8, context_length=200, prediction_length=12))
