"""The messages that docs/troubleshooting.md quotes are those of the code, and so are its exit codes."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.docs.blocks import ROOT
from tsmerge_export import errors
from tsmerge_export.cli import handler

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


@cache
def texts() -> str:
    """Every string of the package; what an f-string fills in is a blank."""
    out = []
    for file in sorted((ROOT / "tsmerge_export").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                out.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "\0" for p in node.values]
                out.append("".join(map(str, parts)))
    return "\n".join(out)


def test_every_message_is_in_the_code() -> None:
    assert len(MESSAGES) > 20
    for message in MESSAGES:
        pattern = "[^\n]*".join(re.escape(part) for part in message.strip(" .").split("..."))
        assert re.search(pattern, texts()), message


def test_a_message_that_is_not_there_is_found_out() -> None:
    assert not re.search(re.escape("no such message is anywhere"), texts())


def test_exit_codes_are_those_of_the_errors() -> None:
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE))
    codes = {
        errors.VerdictError: "a verdict failed",
        errors.UsageError: "usage",
        errors.UnsupportedError: "unsupported",
        errors.MissingDependencyError: "not installed",
    }
    for error, text in codes.items():
        assert text in table[str(error.exit_code)]
    assert f"| {handler.INTERRUPTED}, {handler.TERMINATED} |" in PAGE
