"""The fenced blocks of README and pages.

An info string may end with ``slow`` (run with the slow tests), ``needs="module"`` (run where that is installed) or
``skip="a reason"`` (not run, but its flags are checked).
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: Pages of the site that lie in docs/; the others are beside the code that they are about.
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS, *sorted((ROOT / "plugins").glob("*/*.md"))]

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_SKIP = re.compile(r'skip="([^"]+)"')
_NEEDS = re.compile(r'needs="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block. ``line`` is that of its fence, ``skip`` why it is not run, ``needs`` a module, if any."""

    page: Path
    line: int
    language: str
    text: str
    slow: bool
    skip: str | None
    needs: str | None

    @property
    def name(self) -> str:
        """The page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, without comments; ``&&`` and line ends separate them."""
        out = []
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                out.append(words[: words.index("&&")])
                words = words[words.index("&&") + 1 :]
            if words:
                out.append(words)
        return out


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text()
    out = []
    for match in _FENCE.finditer(text):
        language, _, info = match[1].strip().partition(" ")
        reason, module = _SKIP.search(info), _NEEDS.search(info)
        slow = "slow" in _SKIP.sub("", info).split()
        line = text.count("\n", 0, match.start()) + 1
        out.append(Block(page, line, language, match[2], slow, reason and reason[1], module and module[1]))
    return out


def spans_of(page: Path) -> list[str]:
    """All inline code of a page."""
    return [" ".join(span.split()) for span in _SPAN.findall(_FENCE.sub("", page.read_text()))]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
