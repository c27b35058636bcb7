"""Merging algorithms in eager PyTorch (the specification) and their reversible application to modules."""

from tsmerge_export.methods.combine import Merged, unmerge
from tsmerge_export.methods.dynamic.reference import dynamic_merge
from tsmerge_export.methods.dynamic.series import series_merge
from tsmerge_export.methods.local.reference import local_merge
from tsmerge_export.methods.pitome.reference import pitome_merge
from tsmerge_export.methods.ssm.reference import ssm_merge

__all__ = ["Merged", "dynamic_merge", "local_merge", "pitome_merge", "series_merge", "ssm_merge", "unmerge"]
