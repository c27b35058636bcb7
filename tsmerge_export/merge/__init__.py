"""Merging algorithms in eager PyTorch (the specification) and their reversible application to modules."""

from tsmerge_export.merge.combine import Merged, unmerge
from tsmerge_export.merge.dynamic import dynamic_merge
from tsmerge_export.merge.local import local_merge
from tsmerge_export.merge.pitome import pitome_merge
from tsmerge_export.merge.ssm import ssm_merge

__all__ = ["Merged", "dynamic_merge", "local_merge", "pitome_merge", "ssm_merge", "unmerge"]
