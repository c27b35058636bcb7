"""The commands behind the flags: check what can be checked at once, call the library, print the result."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tsmerge_export.backends import DEFAULT
from tsmerge_export.backends.onnxruntime.place import Place
from tsmerge_export.cli.files import check_files, check_inside, write_json
from tsmerge_export.cli.handler import raise_if_interrupted
from tsmerge_export.cli.merging import merge_config
from tsmerge_export.cli.precision import precision_of
from tsmerge_export.cli.providers import provider_options
from tsmerge_export.cli.tables import read_data
from tsmerge_export.cli.target import target_of
from tsmerge_export.errors import VerdictError
from tsmerge_export.files.paths import real_path
from tsmerge_export.settings.config import DEFAULT_METHOD, MergeConfig
from tsmerge_export.settings.precision import FLOAT32


def default_output(model: str, method: str) -> str:
    """Name of the bundle when ``-o`` is left out: the model's name and the method, in the current folder."""
    path = Path(model)
    name = (
        path.stem if path.suffix in (".pt", ".pth", ".safetensors", ".onnx", ".pt2") else real_path(path).name
    )
    return f"{name or 'model'}-{method}"


def export(args: argparse.Namespace) -> int:
    """``tsmerge-export MODEL``. Returns 0, or 1 when parity or the precision failed."""
    merge = merge_config(args)
    check_files(args)
    target, precision = target_of(args), precision_of(args)
    place = provider_options(args)
    if target.runtime != DEFAULT:  # then the library is the target's
        place["plugin"] = None
    target.check(
        merge or MergeConfig(), inline=args.inline, place=Place.of(**place), precision=precision or FLOAT32
    )
    from tsmerge_export.bundle import check_output

    if args.output is None and merge is not None:
        args.output = default_output(args.model, merge.method)
    if args.output is not None:
        check_inside(args, check_output(args.output, args.force))
    else:  # which of the two follows from the model; what is there already is then refused before any slow step
        for method in (DEFAULT_METHOD, "none"):
            check_inside(args, Path(default_output(args.model, method)).resolve())
    data = read_data(args)

    from tsmerge_export import api
    from tsmerge_export.bundle.report import as_report, report_dict
    from tsmerge_export.console.progress import EXPORT_STEPS, RichProgress
    from tsmerge_export.graphs.model import GraphOptions
    from tsmerge_export.report.precision import print_precision
    from tsmerge_export.report.target import print_target
    from tsmerge_export.report.text import print_verdicts

    failed = None
    with RichProgress(EXPORT_STEPS, raise_if_interrupted) as progress:
        try:
            bundle = api.export(
                args.model,
                merge,
                # Without any setting the method is known when the model is: its family may say not to merge.
                output=partial(default_output, args.model) if args.output is None else args.output,
                opset=args.opset,
                inline=args.inline,
                force=args.force,
                target=target,
                precision=precision,
                graph=GraphOptions(args.token_mask, args.protect_first, args.protect_last, args.inputs),
                progress=progress,
                data=data,
                **place,
                **_shared(args),
            )
            content = bundle.report
        except VerdictError as error:
            if not error.manifest:
                raise
            failed, content = error, report_dict(error.manifest)
    write_json(args.json, content)
    report = as_report(content)
    title = f"{report.family}: {report.setting.describe()}"
    print_verdicts(report.verdicts, title="\n".join([title, *report.notes]))
    print_precision(report.verdicts.precision, report.precision)
    if failed is not None:
        raise failed
    print_target(report.of_target)
    print(f"bundle: {args.output or default_output(args.model, report.setting.method)}", flush=True)
    return 0


def _shared(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments that export and validate have in common."""
    names = ("family", "config", "trust_remote_code", "original", "atol", "rtol", "threads", "seed")
    return {name: getattr(args, name) for name in names}


def validate(args: argparse.Namespace) -> int:
    """``tsmerge validate DIR MODEL``. Returns 0, or 1 when parity or the precision failed."""
    check_files(args)
    place = provider_options(args)
    Place.of(**place)
    data = read_data(args)
    from tsmerge_export.bundle import read_manifest

    manifest = read_manifest(Path(args.bundle))

    from tsmerge_export import api
    from tsmerge_export.bundle.report import as_report, report_dict
    from tsmerge_export.console.progress import VALIDATE_STEPS, RichProgress
    from tsmerge_export.report.precision import print_precision
    from tsmerge_export.report.text import print_verdicts

    with RichProgress(VALIDATE_STEPS, raise_if_interrupted) as progress:
        verdicts = api.validate(
            args.bundle,
            args.model,
            inputs=args.inputs,
            progress=progress,
            data=data,
            **place,
            **_shared(args),
        )
    providers = list(Place.of(**place).names)
    content = report_dict({**manifest, "verdicts": verdicts, "providers": providers})
    write_json(args.json, content)
    report = as_report(content)
    print_verdicts(report.verdicts, title=f"{args.bundle}: {report.setting.describe()}")
    print_precision(report.verdicts.precision)
    if report.verdicts.parity is not None and report.verdicts.failure is not None:
        raise VerdictError(f"{args.bundle}: {report.verdicts.failure}")
    return 0


def inspect(args: argparse.Namespace) -> int:
    """``tsmerge inspect FILE|DIR``."""
    check_files(args)
    from tsmerge_export.inspection.inspect import inspect_path
    from tsmerge_export.report.text import print_inspection

    found = inspect_path(args.path, batch=args.batch, length=args.length)
    write_json(args.json, found)
    print_inspection(found)
    return 0
