"""The reference of the command line, from the parsers themselves: the standard library and the sources suffice."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tsmerge_export.cli.parser import export_parser, tsmerge_parser


def reference() -> str:
    """Markdown: a section for each command, a table for each group of its flags, and its examples."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    for parser in parsers():
        yield f"## {parser.prog}\n\n{_text(parser.description)}\n"
        yield f"```\n{_usage(parser)}\n```\n"
        if parser.prog == "tsmerge export":
            yield "The same as [tsmerge-export](#tsmerge-export).\n"
            continue
        for group in parser._action_groups:
            yield from _table(parser, group)
        if parser.epilog:
            yield "Examples:\n\n```sh"
            yield from (line.strip() for line in parser.epilog.splitlines()[1:])
            yield "```\n"


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Every parser, the commands of ``tsmerge`` after it."""
    yield export_parser()
    main = tsmerge_parser()
    yield main
    for action in main._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _usage(parser: argparse.ArgumentParser) -> str:
    places = [action.metavar or action.dest for action in parser._get_positional_actions()]
    return " ".join([parser.prog, *map(str, places), "[FLAG ...]"])


def _table(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[str]:
    rows = [_row(parser, action) for action in group._group_actions if action.help != argparse.SUPPRESS]
    if not rows:
        return
    what = "argument" if group.title == "positional arguments" else "flag"
    title = {"options": "general", "positional arguments": "arguments"}.get(group.title or "", group.title)
    note = f", {group.description}" if group.description else ""
    yield f"**{title}**{note}\n\n| {what} | meaning |\n|---|---|"
    yield from rows
    yield ""


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        names = ", ".join(f"`{name}`" for name in action.choices)
        return f"| `{action.metavar}` | one of {names} |"
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    if not action.option_strings:
        return f"| `{value.strip()}` | {_text(action.help, parser)} |"
    flags = ", ".join(f"`{flag}{value}`" for flag in action.option_strings)
    return f"| {flags} | {_text(action.help, parser)} |"


def _text(text: str | None, parser: argparse.ArgumentParser | None = None) -> str:
    """A help text as Markdown."""
    out = (text or "").replace("%%", "%")
    if parser is not None:
        out = out.replace("%(prog)s", parser.prog)
    return out.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")
