"""Hooks of mkdocs: the pages are written to be read on GitHub too, and become a site without being changed.

- READMEs and notes of ``plugins/`` are pages of the site, at their path.
- Links lead to the page of the site where there is one. A file of the repository that is none is named, without a link;
  one that is not there is a warning, and so an error of ``make docs``.
- The marker ``<!-- the parsers -->`` becomes the reference of the command line.
- Info strings of fences lose what is for the tests (``skip=...``, ``slow``), and docstrings their roles.
"""

from __future__ import annotations

import importlib.util
import logging
import posixpath
import re
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger("mkdocs.hooks")

ROOT = Path(__file__).parent.parent.parent
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(\s*```\w+)[ \t].*$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?([\w.]+)</code>")
_MARKER = "<!-- the parsers -->"


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _extra() -> dict[str, str]:
    """Pages outside of docs/: their path in the repository, and on the site."""
    found = sorted((ROOT / "plugins").glob("*/*.md"))
    paths = [path.relative_to(ROOT).as_posix() for path in found]
    return {path: path.replace("/README.md", "/index.md") for path in paths}


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File, InclusionLevel

    for source, page in _extra().items():
        made = File.generated(config, page, abs_src_path=str(ROOT / source))
        made.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, files: Any, **_: Any) -> str:
    extra = _extra()
    there = {site: source for source, site in extra.items()}
    at = there.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(at), target))
        if path == "README.md":
            path = "docs/index.md"
        page_of = extra.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if page_of is not None and files.get_file_from_path(page_of) is not None:
            return (
                f"[{text}]({posixpath.relpath(page_of, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"
            )
        if not (ROOT / path).exists():
            log.warning("%s links to %s, which is not there", at, path)
        return text if text.startswith("`") or path in text else f"{text} (`{path}`)"

    if _MARKER in markdown:
        markdown = markdown.replace(_MARKER, _beside("command_line").reference())
    return _LINK.sub(link, _FENCE.sub(r"\1", markdown))


def on_page_content(html: str, **_: Any) -> str:
    return _ROLE.sub(lambda match: f"<code>{match[1].rpartition('.')[2]}</code>", html)
