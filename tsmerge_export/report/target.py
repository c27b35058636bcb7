"""What a bundle holds for its back end: on stdout, and in the model card. The back end says it, here it is laid out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tsmerge_export import backends
from tsmerge_export.backends.describe import Block, Code, Grid, Heading, Text
from tsmerge_export.console.terminal import print_table


def target_blocks(manifest: Mapping[str, Any]) -> Sequence[Block]:
    """What the back end of a bundle says about its files; nothing where there are none beside the portable ones."""
    target = manifest.get("target")
    return backends.of(manifest).describe(target) if isinstance(target, Mapping) else ()


def target_section(manifest: Mapping[str, Any]) -> str:
    """Markdown about the target of a bundle; empty where there is none."""
    blocks = target_blocks(manifest)
    return "\n\n".join([f"## {manifest['target']['runtime']}", *map(_markdown, blocks)]) if blocks else ""


def _markdown(block: Block) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, Heading):
        return f"### {block.text}"
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    lines = [block.header, ["---"] * len(block.header), *block.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def print_target(manifest: Mapping[str, Any]) -> None:
    """Tables for the terminal on stdout; on stderr what is missing."""
    blocks = target_blocks(manifest)
    for block in blocks:
        if isinstance(block, Grid) and block.short:
            print_table(("", *block.header[1:]), block.rows, block.short)
    for block in blocks:
        if isinstance(block, Text):
            for line in block.told:
                print(line, file=sys.stderr)
