"""Every command on README and pages is one that the parsers take, whether it is run or not."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import BLOCKS, PAGES, ROOT, Block, spans_of
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.parser import export_parser, tsmerge_parser

SHELL = [block for block in BLOCKS if block.language in ("sh", "bash")]
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*(?![\w-])")


def plain(words: list[str]) -> list[str]:
    """A command without variables in front and redirections behind."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    ends = [n for n, word in enumerate(words) if word in ("<", ">", "|")]
    return words[: ends[0]] if ends else words


def parsers() -> Iterator[argparse.ArgumentParser]:
    yield export_parser()
    main = tsmerge_parser()
    yield main
    for action in main._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


@cache
def sources() -> str:
    """All that may define a flag of a script."""
    folders = ("benchmarks", "recipes", "plugins", "tests")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(file.read_text() for file in files if "node_modules" not in file.parts)


def check(words: list[str]) -> None:
    """Fails for a command that could not work."""
    program, *rest = words
    if program == "python" and rest[0] == "-m" and rest[1] == "tsmerge_export":
        program, rest = "tsmerge", rest[2:]
    if program in ("tsmerge", "tsmerge-export"):
        args = (tsmerge_parser() if program == "tsmerge" else export_parser()).parse_args(rest)
        assert callable(args.run)
        if hasattr(args, "merge"):
            merge_config(args)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split()
        for word in rest:
            name, is_variable, _ = word.partition("=")
            assert f"{name} ?=" in makefile if is_variable else name in targets, word
    elif program == "pip":
        assert rest[0] == "install"
        extras = re.findall(r"^(\w[\w-]*) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        for word in rest[1:]:
            if word.startswith("./"):
                assert (ROOT / word / "pyproject.toml").is_file(), word
                continue
            if word in ("--no-index", "--no-build-isolation", "--no-deps"):
                continue
            asked = re.fullmatch(r"(?:\.|tsmerge-export)\[(.+)\]", word)
            assert asked, word
            assert set(asked[1].split(",")) <= set(extras), word
    elif program == "python":
        if rest[0] == "-m":
            script = rest[1].replace(".", "/")
            assert rest[1] == "pytest" or (ROOT / f"{script}.py").is_file() or (ROOT / script).is_dir(), rest
        else:
            assert (ROOT / rest[0]).is_file(), rest
        for flag in _FLAG.findall(" ".join(rest)):
            assert f'"{flag}"' in sources(), flag
    else:
        assert program in ("cmake", "apt-get", "pre-commit", "nvcc"), program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    for block in SHELL:
        if block.page == page:
            for words in block.commands():
                try:
                    check(plain(words))
                except Exception as error:
                    raise AssertionError(f"{block.name}: {' '.join(words)}: {error}") from error


def test_commands_are_found() -> None:
    assert sum(len(block.commands()) for block in SHELL) > 30


def test_no_command_hides_in_a_block_without_a_language() -> None:
    for block in BLOCKS:
        # lowpass.md is written by the command that it shows
        if block.language not in ("sh", "bash") and block.page.name != "lowpass.md":
            first = block.text.split(maxsplit=1)[0]
            assert first not in ("tsmerge", "tsmerge-export", "python", "make", "pip", "cmake"), block.name


def test_every_block_says_at_most_why_it_does_not_run() -> None:
    skipped: list[Block] = [block for block in BLOCKS if block.skip]
    assert all(len(block.skip or "") > 8 for block in skipped)
    assert len(skipped) <= 12


def test_every_flag_in_the_text_is_known() -> None:
    known = {flag for parser in parsers() for action in parser._actions for flag in action.option_strings}
    other = sources() + "".join(file.read_text() for file in (ROOT / "plugins").rglob("*.md"))
    for page in PAGES:
        for span in spans_of(page):
            for flag in _FLAG.findall(span):
                assert flag in known or flag in other, f"{page.name}: {span}"
