"""What the recipes share: flags, the verdicts as a table, a forecast through the exported file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tsmerge_export as tsm
from tsmerge_export.errors import TsmergeError
from tsmerge_export.progress import EXPORT_STEPS, RichProgress
from tsmerge_export.report import print_verdicts


def arguments(doc: str, model: Path | str, ratio: str) -> argparse.Namespace:
    """Flags of a recipe; ``doc`` is its description."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "model", nargs="?", default=str(model), help="folder or hub id (default: %(default)s)"
    )
    parser.add_argument(
        "-o", "--output", default="build/recipe", help="bundle to write (default: %(default)s)"
    )
    parser.add_argument(
        "--ratio", default=ratio, help="share of tokens removed per layer (default: %(default)s)"
    )
    parser.add_argument("--data", help="CSV for the merge cost (default: the bundled sample series)")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    return parser.parse_args()


def export(args: argparse.Namespace) -> tsm.Bundle:
    """Export with local merging at k = 1, print the verdicts; a user's mistake ends in one line."""
    try:
        merge = tsm.MergeConfig(method="local", k=1, ratio=args.ratio)
        with RichProgress(EXPORT_STEPS) as progress:
            bundle = tsm.export(
                args.model, merge, output=args.output, data=args.data, force=args.force, progress=progress
            )
    except TsmergeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print_verdicts(bundle.verdicts, title=f"{args.model}: {merge.describe()}")
    return bundle
