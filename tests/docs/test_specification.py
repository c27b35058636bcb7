"""docs/specification.md and the code are held together by the numbers of its rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "specification.md").read_text()

_RULE = re.compile(r"^- \*\*(R\d+\.\d+)\*\* ", re.MULTILINE)
_SECTION = re.compile(r"^## R(\d+) (.+)$", re.MULTILINE)
_CITED = re.compile(r"\bR(\d+)\.(\d+)(?: to R(\d+)\.(\d+))?")
_FILE = re.compile(r"`([\w/.]+\.(?:py|cpp|h|cuh))`")
_CODE = (".py", ".cpp", ".h", ".cu", ".cuh")

RULES = _RULE.findall(PAGE)


def cited(text: str) -> set[str]:
    """The rules that a text names, those between the ends of a range too."""
    out = set()
    for section, first, end_section, last in _CITED.findall(text):
        assert end_section in ("", section), (
            f"a range over two sections: R{section}.{first} to R{end_section}"
        )
        out |= {f"R{section}.{number}" for number in range(int(first), int(last or first) + 1)}
    return out


def cited_by(paths: list[str]) -> set[str]:
    """The same of files, from the root."""
    return set().union(*(cited((ROOT / path).read_text()) for path in paths))


def sections() -> Iterator[tuple[str, str]]:
    """Number and text of each section of rules."""
    heads = list(_SECTION.finditer(PAGE))
    ends = [*(head.start() for head in heads[1:]), PAGE.index("\n## ", heads[-1].end())]
    for head, end in zip(heads, ends, strict=True):
        yield head[1], PAGE[head.end() : end]


def test_rules_are_numbered_in_order() -> None:
    numbers = [(int(section), int(rule)) for section, rule in (name[1:].split(".") for name in RULES)]
    assert len(numbers) > 60
    assert numbers == sorted(set(numbers))
    for section, text in sections():
        assert [name for name in RULES if name.startswith(f"R{section}.")] == [
            f"R{section}.{n + 1}" for n in range(len(_RULE.findall(text)))
        ]


def test_every_rule_that_the_code_cites_is_there() -> None:
    found = {}
    for folder in ("tsmerge_export", "plugins", "tests", "benchmarks", "recipes"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in _CODE and "node_modules" not in path.parts and path != Path(__file__):
                found |= dict.fromkeys(cited(path.read_text()), path)
    assert len(found) > 60
    assert {rule: path for rule, path in found.items() if rule not in RULES} == {}
    assert cited(PAGE) <= set(RULES)


@pytest.mark.parametrize(
    ("number", "text"), list(sections()), ids=lambda value: f"R{value}" if value.isdigit() else ""
)
def test_the_reference_cites_every_rule_of_its_section(number: str, text: str) -> None:
    line = re.search(r"^Reference: (.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert line
    references = _FILE.findall(line[1])
    assert references
    assert set(_RULE.findall(text)) - cited_by(references) == set()


@pytest.mark.parametrize(
    "row", re.findall(r"^\| (\w.+: R\d+\.\d+ \| .+) \|$", PAGE, re.MULTILINE), ids=lambda row: row[:12]
)
def test_every_implementation_that_the_page_names_cites_the_rule(row: str) -> None:
    what, files = row.split(" | ")
    rule = what.split(": ")[1]
    paths = _FILE.findall(files)
    assert len(paths) > 4
    assert [path for path in paths if rule not in cited_by([path])] == []


def test_nothing_cites_the_design() -> None:
    for folder in ("tsmerge_export", "plugins", "tests", "benchmarks", "recipes", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (*_CODE, ".md") and "node_modules" not in path.parts:
                assert not re.search(r"\bdesign( part)? \d", path.read_text()), path
