"""``report.html`` of a bundle: one file without scripts or network, made from ``report.json`` and nothing else."""

from tsmerge_export.report.html.page import report_page

__all__ = ["report_page"]
