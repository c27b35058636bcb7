"""``tsmerge families``: flags and command."""

from __future__ import annotations

import argparse
import sys

HELP = "list the model families, those of other packages too, and what works with each"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--json", metavar="FILE", help="also write the list as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the list; a family that cannot be loaded is a line on stderr. Returns 0."""
    from tsmerge_export.cli.files import check_files, write_json

    check_files(args)
    from tsmerge_export.families.listing import entries
    from tsmerge_export.report.text import print_families

    found = entries()
    write_json(args.json, [entry.to_dict() for entry in found])
    print_families(found)
    for entry in found:
        if entry.error is not None:
            print(f"warning: {' '.join(entry.error.split())}", file=sys.stderr)
    return 0
