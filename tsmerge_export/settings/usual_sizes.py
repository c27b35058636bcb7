"""Sizes of the dims of exported graphs that are neither batch nor length, where a call is made up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: By the dim's name: a decoder's samples, caches and steps, series in a group, horizons in patches.
USUAL_SIZES: Mapping[str, int] = MappingProxyType(
    {"samples": 20, "capacity": 64, "series": 1, "horizon": 4, "drawn_steps": 1}
)
