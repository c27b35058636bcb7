"""HTML from strings: everything is escaped but what was made here."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_VOID = frozenset({"br", "circle", "line", "link", "meta", "path", "rect"})


class Html(str):
    """Markup; any other string is text."""

    __slots__ = ()


def text(value: object) -> Html:
    """Text of whatever a user may have named something: escaped, and what cannot be printed replaced."""
    if isinstance(value, Html):
        return value
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(value))
    return Html(html.escape(shown, quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attribute names lose a trailing underscore, others become hyphens; None leaves an attribute out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}/>" if not children else f"<{name}{given}>{join(children)}</{name}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other; text among them is escaped."""
    return Html("".join(map(text, parts)))


def tile(what: str, value: str, more: str, kind: str = "") -> Html:
    """A figure at the top of a page: what it is, its value, more of it; ``kind`` is ``good``, ``warn`` or ``bad``."""
    lines = ((what, "what"), (value, "value"), (more, "more"))
    return tag("li", *(tag("span", words, class_=name) for words, name in lines), class_=kind or None)


def section(title: str, name: str, *children: object) -> Html:
    """A section with a heading; nothing where it would be empty."""
    if not any(children):
        return Html("")
    heading = tag("h2", title, id=name)
    return tag("section", heading, *children, aria_labelledby=name)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, name: str, words: int = 1) -> Html:
    """A table that scrolls sideways where the screen is narrow.

    Args:
        header: cells of the first row; empty strings alone make no row. name: what it shows, for those who hear it.
        words: how many columns from the left hold words; the others hold figures.
    """

    def cells(row: Sequence[object]) -> Html:
        first = tag("th", row[0], scope="row")
        return tag(
            "tr", first, *(tag("td", c, class_=None if i < words else "n") for i, c in enumerate(row[1:], 1))
        )

    head = ""
    if any(header):
        head = tag(
            "thead",
            tag(
                "tr",
                *(tag("th", c, scope="col", class_=None if i < words else "n") for i, c in enumerate(header)),
            ),
        )
    body = tag("tbody", *map(cells, rows))
    inner = tag("table", tag("caption", name, class_="hidden"), head, body)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=name)


def bar(share: float, kind: str = "bar") -> Html:
    """A horizontal bar, ``share`` of its cell wide (0 to 1)."""
    width = f"{100 * min(1.0, max(0.0, share)):.2f}"
    drawn = tag("rect", width=width, height="1", class_=kind)
    return tag(
        "svg", drawn, class_="bar", viewBox="0 0 100 1", preserveAspectRatio="none", aria_hidden="true"
    )


def legend(keys: Iterable[tuple[Html, str]]) -> Html:
    """What the marks of a picture stand for: each a shape of 22 by 12, and words."""
    return tag(
        "ul",
        *(
            tag("li", tag("svg", shape, viewBox="0 0 22 12", aria_hidden="true"), words)
            for shape, words in keys
        ),
        class_="legend",
    )


def code(content: str) -> Html:
    """Commands, as they are."""
    return tag("pre", tag("code", content), tabindex="0")
