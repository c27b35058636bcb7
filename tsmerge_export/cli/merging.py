"""The flags of a merge setting, made of what the methods say about themselves, and the setting that they make."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tsmerge_export.cli.readers import layers, whole
from tsmerge_export.errors import UsageError
from tsmerge_export.settings import entry_points, registry
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import AUTO, GENERAL, Option, flag

if TYPE_CHECKING:
    from tsmerge_export.settings.config import MergeConfig

_MERGE = "--merge"
#: In front of the name of a plug-in's option, so that it is none of the command's own arguments.
_OWN = "option:"


def add_merging(parser: argparse.ArgumentParser) -> None:
    """The flags of a merge setting; those of plug-ins come when they are named, see :func:`add_plugged`."""
    group = parser.add_argument_group("merging")
    specs = [registry.spec(name) for name in registry.built_in()]
    group.add_argument(
        _MERGE,
        metavar="METHOD",
        help=f"{', '.join(registry.built_in())} or {registry.NONE}; default: {registry.DEFAULT}, or {registry.NONE} "
        "where the family advises against it; a plug-in's method is told by --merge NAME --help",
    )
    for option in registry.built_in_options():
        group.add_argument(option.flag, help=_help(option, specs), **_value(option))
    able = registry.able(lambda one: one.causal)
    group.add_argument("--min-tokens", type=whole(0), metavar="N", help="leave at least so many; default: 4")
    group.add_argument("--layers", type=layers, metavar="I,J,...", help="layers to merge in; default: all")
    group.add_argument("--positions", metavar="HOW", help="gather (true distances, default) or compact")
    group.add_argument(
        "--causal",
        action="store_true",
        default=None,
        help=f"{able} with --k 1, for decoders: no slot is read from a later token when tokens are unmerged",
    )
    group.add_argument(
        "--metric",
        metavar="WHAT",
        help="what is compared: x (the tokens, default), key (attention keys) or hidden (of a state-space block)",
    )
    group.add_argument(
        "--prop-attn",
        action="store_true",
        default=None,
        help="proportional attention: a merged token counts as often as its size",
    )
    group.add_argument(
        "--protect-newest",
        type=whole(0),
        metavar="N",
        help="so many of the newest tokens take part in no merge, beside special ones; default: 0",
    )


def add_plugged(parser: argparse.ArgumentParser, args: Sequence[str]) -> None:
    """Add the options of the plug-in's method that ``args`` name, to be read, or told with ``--help``.

    Does nothing in a command without the flags of :func:`add_merging`. Packages are looked through only where a method
    that is none of ours is named: that takes as long as all the rest of a ``--help``.

    Raises:
        UsageError: the plug-in is broken, or an option of it has the name of another flag of the command.
    """
    if _MERGE not in parser._option_string_actions:
        return
    ours = (*registry.built_in(), registry.NONE)
    named = [name for name in _methods_in(args) if name not in ours]
    plugged = [registry.spec(name) for name in named if name in entry_points.found(registry.GROUP)]
    known = {option.name for option in registry.built_in_options()}
    for one in plugged:
        group = parser.add_argument_group(
            f"{_MERGE} {one.name}", f"{one.keeps} ({one.source})".replace("%", "%%")
        )
        for option in one.options:
            if option.name in known:
                continue
            if option.flag in parser._option_string_actions:
                raise UsageError(
                    f"{_MERGE} {one.name}: its option {option.flag} is another flag of {parser.prog}; the package must "
                    "rename it"
                )
            group.add_argument(
                option.flag, dest=_OWN + option.name, help=_help(option, [one]), **_value(option)
            )


def merge_config(args: argparse.Namespace) -> MergeConfig | None:
    """The merge settings of the flags; None where there are none. An amount that is left out is the family's.

    Raises:
        UsageError: out of range, contradicting, or without effect.
    """
    from tsmerge_export.settings.config import MergeConfig

    names = (*(option.name for option in registry.built_in_options()), *GENERAL)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    own = {name: value for name, value in vars(args).items() if name.startswith(_OWN) and value is not None}
    given |= {name.removeprefix(_OWN): value for name, value in own.items()}
    if args.merge is None and not given:
        return None
    method = args.merge or registry.DEFAULT
    if method == registry.NONE:
        if given:
            raise UsageError(f"{flag(next(iter(given)))} has no effect with --merge none; leave it out")
        return MergeConfig(method)
    if registry.spec(method).option("ratio") is not None and "r" not in given:
        given.setdefault("ratio", AUTO)
    return MergeConfig(method=method, **given)


def _value(option: Option) -> dict[str, Any]:
    """Whether a flag takes a value, as arguments of ``add_argument``."""
    return {"action": "store_true", "default": None} if option.switch else {"metavar": option.metavar}


def _help(option: Option, specs: Iterable[MethodSpec]) -> str:
    words = option.help.format(methods=", ".join(registry.takers(option, specs)))
    return words.replace("%", "%%")


def _methods_in(args: Sequence[str]) -> list[str]:
    """The values of ``--merge``."""
    after = [value for word, value in pairwise(args) if word == _MERGE]
    return [*after, *(word.partition("=")[2] for word in args if word.startswith(f"{_MERGE}="))]
