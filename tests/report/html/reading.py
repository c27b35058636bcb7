"""Reads the page back with the standard library's parser: its text by section, its elements, its styles."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"br", "link", "meta"}


@dataclass
class Element:
    """An element of the page."""

    name: str
    attributes: dict[str, str]
    children: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text below it."""
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, name: str, **attributes: str) -> list[Element]:
        """Elements below it, in order, of a name and with all of these attributes (``class_`` is ``class``)."""
        out = []
        for child in self.children:
            if isinstance(child, Element):
                wanted = {k.rstrip("_"): v for k, v in attributes.items()}
                if child.name == name and all(child.attributes.get(k) == v for k, v in wanted.items()):
                    out.append(child)
                out += child.all(name, **attributes)
        return out

    def one(self, name: str, **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(name, **attributes)
        return found

    def rows(self) -> list[list[str]]:
        """Cells of all table rows below it."""
        return [[cell.text for cell in row.children if isinstance(cell, Element)] for row in self.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self._open[-1].children.append(Element(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def read(page: str) -> Element:
    """The page as a tree. Fails where an element is not closed in order."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader._open == [reader.root], "an element is not closed"
    return reader.root


def part(page: Element, name: str) -> Element:
    """The section whose heading has this id."""
    return page.one("section", **{"aria-labelledby": name})
