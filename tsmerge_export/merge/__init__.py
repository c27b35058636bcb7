"""Merging algorithms in eager PyTorch (the specification) and their reversible application to modules."""

from tsmerge_export.merge.local import Merged, local_merge, unmerge

__all__ = ["Merged", "local_merge", "unmerge"]
