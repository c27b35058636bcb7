"""What is done with a hostile file, and how it ended: the four ways in which files from elsewhere are touched."""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.quick import quick_verdicts
from tsmerge_export import MergeConfig, api
from tsmerge_export.backends import load
from tsmerge_export.bundle import MANIFEST, Bundle, sha256
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.inspection.inspect import inspect_path

MERGE = MergeConfig(ratio="1/4", min_tokens=2)
#: Outcomes that are right: it works, or one line says why not, with exit code 1 (a verdict), 2, 3 or 4.
GOOD = ("ok", "verdict", "usage", "unsupported")


def export(file: Path, output: Path) -> Bundle:
    """:func:`tsmerge_export.api.export` with few cases: it is not the verdict that is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        quick_verdicts(patch)
        return api.export(file, MERGE, output=output, force=True, threads=1)


def validate(folder: Path, file: Path) -> dict[str, Any]:
    """:func:`tsmerge_export.api.validate` with few cases."""
    with pytest.MonkeyPatch.context() as patch:
        quick_verdicts(patch)
        return api.validate(folder, file, threads=1)


def outcome(call: Callable[[], object]) -> str:
    """``ok``, the class of an error on purpose, or ``unexpected`` with where it came from."""
    try:
        call()
    except TsmergeError as error:
        if not str(error).strip():
            return "unexpected: an error without a message"
        if isinstance(error, UsageError):
            return "usage"
        return "unsupported" if isinstance(error, UnsupportedError) else "verdict"
    except OSError as error:  # the command line shows it as a line about that file
        return "usage" if error.strerror else f"unexpected: {type(error).__name__}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "tsmerge_export" in f.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else f"{last.filename}:{last.lineno}"
        return f"unexpected: {type(error).__name__} in {place}: {' '.join(str(error).split())[:120]}"
    return "ok"


def hashes_made_new(bundle: Path) -> None:
    """As whoever forges a bundle does."""
    file = bundle / MANIFEST
    manifest = json.loads(file.read_text())
    for name in manifest["files"]:
        path = bundle / name
        manifest["files"][name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    file.write_text(json.dumps(manifest))


def run_bundle(bundle: Path) -> None:
    """Load and run once."""
    session = load(bundle, threads=1)
    inputs = {}
    for item in session.inputs:  # what no array can be is left to the product
        dims = [2 if isinstance(dim, str) else dim for dim in item.dims][:32]
        known = not item.dtype.startswith("tensor(")
        inputs[item.name] = np.ones(dims if math.prod(dims) < 2**20 else [1], item.dtype if known else "f4")
    session.run(inputs)


def touch_graph(file: Path, folder: Path, like: Path) -> dict[str, str]:
    """All four on an .onnx file.

    Args:
        folder: scratch, removed afterwards. like: a bundle into which the file is put, for ``load``.

    Returns:
        Operation -> outcome.
    """
    made, forged = folder / "made", folder / "forged"
    found = {
        "inspect": outcome(lambda: inspect_path(file)),
        "export": outcome(lambda: export(file, made)),
        "validate": outcome(lambda: validate(made if made.is_dir() else like, file)),
    }
    if file.is_file():
        shutil.copytree(like, forged)
        shutil.copyfile(file, forged / "model.onnx")
        hashes_made_new(forged)
        found["load"] = outcome(lambda: run_bundle(forged))
    shutil.rmtree(folder, ignore_errors=True)
    return found


def touch_bundle(bundle: Path, model: Path) -> dict[str, str]:
    """What is done with a bundle."""
    return {
        "inspect": outcome(lambda: inspect_path(bundle)),
        "load": outcome(lambda: run_bundle(bundle)),
        "validate": outcome(lambda: validate(bundle, model)),
    }
