"""``report.json``, typed: what the manifest says of the result, and what only the report keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tsmerge_export.bundle.compression import Compression
from tsmerge_export.bundle.distillation import Distillation
from tsmerge_export.bundle.example import Counted, Example
from tsmerge_export.bundle.manifest import Described, described_of
from tsmerge_export.bundle.run import Run
from tsmerge_export.bundle.search import Search
from tsmerge_export.errors import UsageError

FORMAT = "tsmerge-report"
FORMAT_VERSION = 1
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Report(Described):
    """``report.json``.

    Attributes:
        run: the arguments of the export. seconds: by step of it. tokens: per component what ``inspect`` counts.
        example: of the forecasts; None where no cost was measured. search: what ``tsmerge tune`` tried.
        distillation: how the weights were trained, where the checkpoint says it. compression: what ``tsmerge compress``
            did to them.
    """

    run: Run = field(default_factory=Run)
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: tuple[Counted, ...] = ()
    example: Example | None = None
    search: Search | None = None
    distillation: Distillation | None = None
    compression: Compression | None = None


#: What ``report.json`` holds beside the number of its format, in the order of the file.
KEYS: tuple[str, ...] = tuple(one.name for one in fields(Report) if "manifest_only" not in one.metadata)


def report_dict(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``report.json``: what a manifest says about the result, without the list of files.

    Args:
        manifest: of a bundle; ``verdicts`` holds ``parity`` and ``cost`` as their reports' ``to_dict()`` gives them.
            During an export it also holds what :class:`Report` adds.
    """
    said = {key: manifest[key] for key in KEYS if key in manifest}
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **said}


def report_of(content: Mapping[str, Any], file: object = REPORT) -> Report:
    """The report that a file holds.

    Args:
        content: of the file; without ``format`` where it is not written yet.

    Raises:
        UsageError: another format, or a field is missing or of another type.
    """
    said = (content.get("format", FORMAT), content.get("format_version", FORMAT_VERSION))
    if said[0] != FORMAT:
        raise UsageError(f"{file}: is not a report of tsmerge-export")
    if said[1] != FORMAT_VERSION:
        raise UsageError(f"{file}: report format {said[1]!r}, this version reads {FORMAT_VERSION}")
    return described_of(Report, content, file)


def as_report(content: Report | Mapping[str, Any]) -> Report:
    """A report, typed or as ``report.json`` has it. Raises UsageError as :func:`report_of`."""
    return content if isinstance(content, Report) else report_of(content)
