"""Bipartite soft matching over all tokens (ToMe, arXiv 2210.09461, section 3): local merging with k = all."""

from __future__ import annotations

from tsmerge_export.methods.local.reference import LocalMethod


class GlobalMethod(LocalMethod):
    """:func:`~tsmerge_export.methods.local.reference.local_merge` of a config that has no k."""

    name = "global"
