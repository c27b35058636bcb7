"""``tsmerge ort``: flags and command."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a bundle's files in ONNX Runtime's own format, which loads faster"


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    from tsmerge_export.cli.readers import whole

    parser.add_argument("path", metavar="BUNDLE", help="bundle, or an .onnx file")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="where the .ort files go")
    parser.add_argument(
        "--plugin",
        metavar="LIB",
        help="library of native operators, which the files then need; default: they are written out",
    )
    parser.add_argument("--threads", type=whole(1), metavar="N", help="threads of ONNX Runtime")
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, prove, write, print sizes and times. Returns 0."""
    from tsmerge_export.cli.files import check_files, write_json

    check_files(args)
    import shutil
    from functools import partial
    from tempfile import TemporaryDirectory

    from tsmerge_export.backends.onnxruntime.place import Place
    from tsmerge_export.console import terminal
    from tsmerge_export.files.output_file import OutputFile
    from tsmerge_export.tools.ort_format import ENDING, convert, files_of

    library = None if args.plugin is None else Place.of(None, args.plugin).native_library()
    files = files_of(args.path)
    output = Path(args.output)
    with TemporaryDirectory(prefix="tsmerge-") as name:
        scratch = Path(name)
        found = [
            convert(key, file, scratch / f"{key}{ENDING}", plugin=library, threads=args.threads)
            for key, file in files.items()
        ]
        make_folder(output)
        for one in found:
            made = scratch / f"{one.name}{ENDING}"
            OutputFile("-o", output / made.name).write(partial(shutil.copyfile, made))
    write_json(args.json, [one.to_dict() for one in found])
    header = ("file", "", "size", "load", "first call")
    rows = []
    for one in found:
        for name, kind, size, load, first in (
            (one.name, "onnx", one.onnx_bytes, one.onnx_load_ms, one.onnx_first_ms),
            ("", "ort", one.ort_bytes, one.ort_load_ms, one.ort_first_ms),
        ):
            rows.append((name, kind, f"{size / 1e6:.2f} MB", f"{load:.1f} ms", f"{first:.1f} ms"))
    terminal.print_table(header, rows)
    return 0


def make_folder(path: Path) -> None:
    """Make a folder that may be there already. Raises UsageError: it cannot be made."""
    from tsmerge_export.errors import UsageError

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {path}: cannot be made ({error.strerror})") from None
