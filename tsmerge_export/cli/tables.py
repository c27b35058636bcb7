"""Flags of every command that reads a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tsmerge_export.errors import UsageError
from tsmerge_export.tables.source import STDIN

if TYPE_CHECKING:
    from tsmerge_export.tables.options import TableOptions
    from tsmerge_export.tables.table import Table

FILES = ".csv, .tsv, .txt (also .gz), .parquet, or - for stdin"
_WORDS = {"tab": "\t", r"\t": "\t", "space": " ", "comma": ",", "semicolon": ";"}


def separator(text: str) -> str:
    """Type of ``--sep``: one character that cannot be part of a number or name, or a word for it."""
    found = _WORDS.get(text, text)
    if len(found) != 1 or found.isalnum() or found in "\"'.+-\r\n":
        raise argparse.ArgumentTypeError(f"{text!r} is not a separator such as ',', ';', tab or space")
    return found


def decimal(text: str) -> str:
    """Type of ``--decimal``: a point or a comma."""
    if text not in (".", ","):
        raise argparse.ArgumentTypeError(f"{text!r} is not a decimal sign; give . or ,")
    return text


def add_table_options(parser: argparse.ArgumentParser, what: str) -> None:
    """The flags that say how a table is read.

    Args:
        what: the argument that names the table, for the help.
    """
    group = parser.add_argument_group(
        "table",
        f"how {what} is read: wide (one column per series) or long (a row per series and time); messages count rows as "
        "the file does, header included",
    )
    group.add_argument(
        "--sep", type=separator, metavar="C", help="separator: ',', ';', tab, space; default: found"
    )
    group.add_argument("--decimal", type=decimal, metavar="C", help="decimal sign, . or ,; default: found")
    group.add_argument(
        "--date-format",
        metavar="FORMAT",
        help="of timestamps, such as %%d/%%m/%%Y; default: found from the dates",
    )
    group.add_argument(
        "--dayfirst",
        action=argparse.BooleanOptionalAction,
        help="01/02/2024 is 1 February (--no-dayfirst: January 2); default: what a day above 12 proves, else refused",
    )
    group.add_argument(
        "--freq",
        metavar="FREQ",
        help="frequency such as h, D or W: gaps become missing values; default: found from the rows",
    )
    group.add_argument(
        "--id-column", metavar="NAME", help="which series a row belongs to; default: item_id, unique_id or id"
    )
    group.add_argument(
        "--timestamp-column",
        metavar="NAME",
        help="default: timestamp, datetime, date, ds or time, or a first column of dates",
    )
    group.add_argument(
        "--target", metavar="NAME", help="the numbers of a long table; default: target, y or its only numbers"
    )


def read_data(args: argparse.Namespace, **how: Any) -> Table | None:
    """The series of ``--data``; None where it is left out.

    Args:
        how: further arguments of :func:`~tsmerge_export.tables.read.read_table`.

    Raises:
        UsageError: as there, or flags about a table that is not given.
    """
    options = table_options(args)
    if args.data is None:
        if options.words():
            raise UsageError(
                f"{options.words()[0]} is about the file of --data; give it too, or leave this out"
            )
        if how.get("columns") is not None:
            raise UsageError("--column names columns of --data; give the file too, or leave this out")
        return None
    from tsmerge_export.tables.read import read_table

    return read_table(how.pop("source", args.data), options=options, **how)


def read_tables(args: argparse.Namespace, **how: Any) -> tuple[Table, ...]:
    """The tables of a ``--data`` that takes several, read alike; none where it is left out. Raises UsageError."""
    files = args.data or (None,)
    if files.count(STDIN) > 1:
        raise UsageError("--data -: stdin can be read once only; name it once")
    read = (read_data(argparse.Namespace(**{**vars(args), "data": file}), **how) for file in files)
    return tuple(table for table in read if table is not None)


def table_options(args: argparse.Namespace) -> TableOptions:
    """What the flags say. Raises UsageError for those that contradict each other."""
    from tsmerge_export.tables.options import TableOptions

    if args.sep is not None and args.sep == args.decimal:
        raise UsageError(f"--sep {args.sep} and --decimal {args.decimal} are the same sign; change one")
    if args.date_format is not None and args.dayfirst is not None:
        raise UsageError("--dayfirst has no effect with --date-format; leave it out")
    names = TableOptions.__dataclass_fields__
    return TableOptions(**{name: getattr(args, name) for name in names})
