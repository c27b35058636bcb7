"""What every page has: head, style, policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from tsmerge_export.report.html.markup import Html, tag


@cache
def _style() -> str:
    return (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def policy() -> str:
    """The page's Content-Security-Policy: its own style sheet by hash, an empty icon, and nothing else.

    Without an icon of its own a browser asks the server for one.
    """
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def document(title: str, body: Html) -> str:
    """A whole page, in one file: no scripts, no network."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="generator", content="tsmerge-export"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Html(f"<style>{_style()}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"
