"""``.pt2`` files of ``torch.export.save``: checked first, because torch's reader runs what it finds in them.

``torch.export.load`` (torch 2.13) unpickles weights that say so, opaque constants and, when they do not load
otherwise, the sample inputs; it evaluates size expressions with sympy, and calls operators by their dotted name. So
only files pass that hold raw tensors, sample inputs that load with ``weights_only=True``, plain size expressions, and
operators of aten.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.errors import UnsupportedError, UsageError

_MODEL = "models/model.json"
_FILES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|\.?data/(serialization_id|version)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|byteorder|version"
)
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TARGETS = re.compile(r"torch\.ops\.aten\.(?!from_file\b)\w+(\.\w+)?|torch\.ops\.higher_order\.wrap_with_"
                      r"(set_grad_enabled|autocast)|_operator\.(add|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|sub|"
                      r"truediv)|torch\.sym_(ite|max|min|not|sum|float|int)|math\.(ceil|floor|trunc)")  # fmt: skip
# Functions of sympy and of torch's own that size expressions are written with.
_WORDS = {
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "And", "Or", "Not", "Eq",
    "Ne", "Equality", "Unequality", "GreaterThan", "StrictGreaterThan", "LessThan", "StrictLessThan", "Ge", "Gt", "Le",
    "Lt", "FloorDiv", "CeilDiv", "CleanDiv", "ModularIndexing", "PythonMod", "IntTrueDiv", "FloatTrueDiv", "TruncToInt",
    "FloorToInt", "CeilToInt", "RoundToInt", "ToFloat", "IntInfinity", "int_oo", "Piecewise", "floor", "ceiling",
    "true", "false", "True", "False", "integer", "positive", "nonnegative", "real", "evaluate", "None", "oo",
}  # fmt: skip
_EXPRESSION = re.compile(r"[\w\s()\[\]{},+\-*/%<>=!&|'~:]*(?:\d\.\d[\w\s()\[\]{},+\-*/%<>=!&|'~:]*)*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_NUMBERED = re.compile(r"[a-z]{1,4}\d+")


def read_program(path: Path) -> ExportedProgram:
    """An exported program, from a file that can do no harm.

    Raises:
        UsageError: missing, truncated, above the size cap, or holding what would have to be executed.
        UnsupportedError: of another torch version, or with operators other than aten's.
    """
    try:
        _check(path)
        program = torch.export.load(path)
        program._guards_code = []  # text that would be compiled; sizes are checked by comparing results
        return program
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (UsageError, UnsupportedError):
        raise
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, EOFError):
        raise UsageError(f"{path}: truncated or not a file of torch.export.save") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # torch's reader raises many types
        reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
        raise UnsupportedError(f"{path}: torch {torch.__version__} cannot read it: {reason}") from error


def _check(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        path.stat()
        raise UsageError(f"{path}: truncated or not a file of torch.export.save")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        check_model_bytes(str(path), sum(entry.file_size for entry in entries))
        names = [entry.filename for entry in entries]
        roots = {name.partition("/")[0] for name in names}
        files = {name.partition("/")[2] for name in names}
        if len(roots) != 1 or len(set(names)) != len(names) or _MODEL not in files:
            raise UsageError(
                f"{path}: not a file of torch.export.save by torch 2.8 or newer; save the program again"
            )
        root = roots.pop()
        foreign = sorted(name for name in files if not _FILES.fullmatch(name))
        if foreign:
            raise UsageError(
                f"{path}: holds {foreign[0]}, which is no plain tensor and would be executed on loading; "
                "save a program of tensors only"
            )
        for config in _CONFIGS:
            if config not in files:
                raise UsageError(f"{path}: has no {config}; save the program again")
            for name, entry in json.loads(archive.read(f"{root}/{config}"))["config"].items():
                if entry.get("use_pickle") is not False:
                    raise UsageError(f"{path}: {name!r} is pickled, and pickled objects are not loaded")
        samples = archive.read(f"{root}/data/sample_inputs/model.pt")
        try:
            if samples:
                torch.load(io.BytesIO(samples), weights_only=True)
        except Exception:  # whatever it is, torch's reader would go on to unpickle it
            raise UsageError(
                f"{path}: its sample inputs are pickled objects, which are not loaded; save a program of tensors only"
            ) from None
        _check_program(json.loads(archive.read(f"{root}/{_MODEL}")), path)


def _check_program(program: dict[str, Any], path: Path) -> None:
    for key, value in _items(program):
        called: list[Any] = [value] if key == "target" and isinstance(value, str) else []
        if key == "nodes" and isinstance(value, list):  # a tensor may be called target, too
            called += [node.get("target") if isinstance(node, dict) else node for node in value]
        for target in called:
            if not (isinstance(target, str) and _TARGETS.fullmatch(target)):
                raise UnsupportedError(f"{path}: calls {str(target)[:80]!r}, which is no operator of aten")
        if key == "expr_str" and not _harmless(value):
            raise UsageError(f"{path}: {str(value)[:60]!r} is no plain size expression")
    for name in program.get("range_constraints") or {}:
        if not _harmless(name):
            raise UsageError(f"{path}: {str(name)[:60]!r} is no plain size expression")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            yield from found.items()
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)


def _harmless(text: object) -> bool:
    """Whether a size expression holds nothing but numbers, symbols and known functions: no attribute, no other call."""
    if not isinstance(text, str) or len(text) > 10_000 or not _EXPRESSION.fullmatch(text):
        return False
    return all(word in _WORDS or _NUMBERED.fullmatch(word) for word in _WORD.findall(text))
