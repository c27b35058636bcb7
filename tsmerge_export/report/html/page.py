"""The page itself: head, policy, and the sections in the order in which one wants to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsmerge_export.bundle.report import Report, as_report
from tsmerge_export.report.html.about import about_sections, barriers
from tsmerge_export.report.html.compression import compression_section
from tsmerge_export.report.html.distillation import distillation_section
from tsmerge_export.report.html.document import document
from tsmerge_export.report.html.forecast import forecast_section
from tsmerge_export.report.html.markup import Html, join, tag
from tsmerge_export.report.html.speed import pareto_section, time_section
from tsmerge_export.report.html.strip import strip_section
from tsmerge_export.report.html.verdicts import headline, tiles, verdict_sections
from tsmerge_export.settings.config import MergeConfig


def setting_words(merge: MergeConfig) -> str:
    """The setting for a title, without what is usual."""
    return merge.brief() if merge.active else "without merging"


def report_page(content: Report | Mapping[str, Any]) -> str:
    """``report.html``: one file, no scripts, no network, for screens from a phone's up, light and dark.

    Args:
        content: of ``report.json``, typed or as it stands there; every figure on the page comes from it. What is not
            there (no cost where nothing merges, no search where none was made) is said or left out.

    Returns:
        HTML, the same for the same report. Everything that came from a user is escaped.
    """
    report = as_report(content)
    title = f"{report.family}: {setting_words(report.setting)}"
    found = barriers(report)
    warned = Html("")
    if found:
        words = f"Barriers: {len(found)}. Tokens are unmerged early there, which takes away speed; "
        warned = tag("p", words, tag("a", "see below", href="#barriers"), ".", class_="note bad")
    made = f"{report.source}, exported {report.created}"
    top = tag(
        "header", tag("h1", title), tag("p", made, class_="sub"), headline(report), tiles(report), warned,
        *(tag("p", note, class_="note") for note in report.notes),
    )  # fmt: skip
    main = tag(
        "main",
        forecast_section(report),
        strip_section(report),
        pareto_section(report),
        distillation_section(report.distillation),
        compression_section(report.compression),
        verdict_sections(report),
        time_section(report),
        *about_sections(report),
    )
    foot = tag("footer", tag("p", "Every figure here is in report.json. Made by tsmerge-export."))
    return document(title, join((top, main, foot)))
