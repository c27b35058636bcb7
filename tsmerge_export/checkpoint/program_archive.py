"""Rewrites a ``.pt2`` file into one of our own that holds nothing but what was checked.

``torch.export.load`` (torch 2.13) reads the archive with another zip reader than Python's, unpickles weights that say
so, opaque constants and, when they do not load otherwise, the sample inputs; it evaluates size expressions with sympy,
calls operators by their dotted name, and imports modules that the structure of inputs and outputs names. A check of
the file would be worth nothing: two readers may find two contents in it. So what was checked is written anew (raw
tensors, a schema of known keys and operators, one directory), and torch never opens the original.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tsmerge_export.checkpoint.limits import check_model_bytes
from tsmerge_export.checkpoint.zip_layout import check_layout
from tsmerge_export.errors import UnsupportedError, UsageError

MAX_SCHEMA_BYTES = 256 * 2**20  # of the JSON texts together; the graph of a large model has 20 MB
_MAX_ENTRIES = 100_000
_MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
_SAMPLES = "data/sample_inputs/model.pt"
_TENSOR = re.compile(r"data/weights/weight_\d{1,9}|data/constants/tensor_\d{1,9}")
_IGNORED = re.compile(r"\.?data/(serialization_id|version)|archive_format|archive_version|byteorder|version")
_TARGETS = re.compile(r"torch\.ops\.aten\.(?!from_file\b)\w+(\.\w+)?|torch\.ops\.higher_order\.wrap_with_"
                      r"(set_grad_enabled|autocast)|_operator\.(add|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|sub|"
                      r"truediv)|torch\.sym_(ite|max|min|not|sum|float|int)|math\.(ceil|floor|trunc)")  # fmt: skip
_CALLED = ("target", "as_operator")
_NOTES = ("stack_trace", "nn_module_stack", "torch_fn")  # metadata of a node that are text and stay text
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
_LARGE_POWER = re.compile(r"\*\*\s*(?!\d{1,2}(?!\d))")  # a power of anything but a small number


def rewrite_program(path: Path, clean: Path) -> None:
    """Check ``path`` and write what it holds to ``clean``.

    Raises:
        UsageError: missing, truncated, above the size cap, or holding what would have to be executed.
        UnsupportedError: operators other than aten's.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise UsageError(f"{path}: truncated or not a file of torch.export.save")
            with (
                zipfile.ZipFile(file) as source,
                zipfile.ZipFile(clean, "w", zipfile.ZIP_STORED) as target,
            ):
                _rewrite(path, check_layout(file, source, str(path)), source, target)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (UsageError, UnsupportedError):
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (
        zipfile.BadZipFile,
        struct.error,
        NotImplementedError,
        EOFError,
        UnicodeError,
        json.JSONDecodeError,
    ):
        raise UsageError(f"{path}: truncated or not a file of torch.export.save") from None
    except RecursionError:
        raise UsageError(f"{path}: its schema is nested too deeply") from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        raise UsageError(f"{path}: its schema is not as expected; save the program again") from None


def _rewrite(
    path: Path, listed: list[zipfile.ZipInfo], source: zipfile.ZipFile, target: zipfile.ZipFile
) -> None:
    entries = _entries(path, listed)
    texts = {}
    for name in (_MODEL, _WEIGHTS, _CONSTANTS):
        if name not in entries:
            raise UsageError(f"{path}: has no {name}; save the program again with torch 2.8 or newer")
        texts[name] = json.loads(source.read(entries[name]))
    tensors = {name for name in entries if _TENSOR.fullmatch(name)}
    wanted = {
        _MODEL: _program(texts[_MODEL], path),
        _WEIGHTS: _payload(texts[_WEIGHTS], "data/weights/", tensors, path),
        _CONSTANTS: _payload(texts[_CONSTANTS], "data/constants/", tensors, path),
    }
    written: dict[str, str] = {name: json.dumps(content) for name, content in wanted.items()}
    # Sample inputs would be unpickled, and nobody needs them.
    written |= {_SAMPLES: "", "archive_format": "pt2", "archive_version": "0", ".data/version": "3\n"}
    for name, text in written.items():
        target.writestr(f"program/{name}", text)
    for name in sorted(tensors):
        with source.open(entries[name]) as old, target.open(f"program/{name}", "w", force_zip64=True) as new:
            shutil.copyfileobj(old, new, 1 << 20)


def _entries(path: Path, listed: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The archive's files by their name behind its one top folder; none is packed, so none grows."""
    names = [entry.filename for entry in listed]
    check_model_bytes(str(path), sum(entry.file_size for entry in listed))
    entries = {entry.filename.partition("/")[2]: entry for entry in listed}
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(entries) != len(names) or len(names) > _MAX_ENTRIES or _MODEL not in entries:
        raise UsageError(
            f"{path}: not a file of torch.export.save by torch 2.8 or newer; save the program again"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in listed):
        raise UsageError(f"{path}: is compressed, which torch.export.save never does; save the program again")
    if sum(entries[name].file_size for name in (_MODEL, _WEIGHTS, _CONSTANTS) if name in entries) > (
        MAX_SCHEMA_BYTES
    ):
        raise UsageError(f"{path}: a schema of more than {MAX_SCHEMA_BYTES} bytes is no program of a model")
    known = (_MODEL, _WEIGHTS, _CONSTANTS, _SAMPLES)
    foreign = sorted(
        n for n in entries if n not in known and not _TENSOR.fullmatch(n) and not _IGNORED.fullmatch(n)
    )
    if foreign:
        raise UsageError(
            f"{path}: holds {foreign[0]!r}, which is no plain tensor and would be executed on loading; "
            "save a program of tensors only"
        )
    return entries


def _payload(content: Any, folder: str, tensors: set[str], path: Path) -> dict[str, Any]:
    """Which file holds which tensor: raw bytes only."""
    kept = {}
    for name, entry in content["config"].items():
        if entry.get("use_pickle") is not False:
            raise UsageError(f"{path}: {name!r} is pickled, and pickled objects are not loaded")
        if f"{folder}{entry['path_name']}" not in tensors:
            raise UsageError(f"{path}: {name!r} has no tensor in the file; save the program again")
        if not isinstance(entry["tensor_meta"], dict):
            raise UsageError(f"{path}: {name!r} is no tensor; save a program of tensors only")
        kept[name] = {key: entry[key] for key in ("path_name", "is_param", "tensor_meta")} | {
            "use_pickle": False
        }
    return {"config": kept}


def _program(program: dict[str, Any], path: Path) -> dict[str, Any]:
    """The schema without what torch would import, compile or unpickle; operators and expressions are checked."""
    graph = program["graph_module"]
    signature = graph["module_call_graph"][0]["signature"]
    entry: dict[str, Any] = {"inputs": [], "outputs": [], "forward_arg_names": None}
    # Types of containers are looked up by importing what the file names. Only the tensors in them matter here.
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    empty = {"type": "builtins.dict", "context": "[]", "children_spec": []}
    entry["in_spec"] = _spec([_tuple([leaf] * _leaves(signature["in_spec"])), empty])
    entry["out_spec"] = _spec([leaf] * _leaves(signature["out_spec"]))
    kept = {
        key: program[key] for key in ("opset_version", "range_constraints", "schema_version", "verifiers")
    }
    kept |= {"torch_version": str(program.get("torch_version", "")), "guards_code": []}
    kept["graph_module"] = {
        "graph": graph["graph"],
        "signature": graph["signature"],
        "module_call_graph": [{"fqn": "", "signature": entry}],
        "metadata": {},
        "treespec_namedtuple_fields": {},
    }
    for found in _objects(kept):
        _check(found, path)
        notes = found.get("metadata")
        if isinstance(notes, dict):
            found["metadata"] = {key: str(notes[key]) for key in _NOTES if notes.get(key)}
    for name in kept["range_constraints"] or {}:
        if not _harmless(name):
            raise UsageError(f"{path}: {str(name)[:60]!r} is no plain size expression")
    return kept


def _check(found: dict[str, Any], path: Path) -> None:
    called: list[Any] = [found[key] for key in _CALLED if isinstance(found.get(key), str)]
    if isinstance(found.get("nodes"), list):  # a tensor may be called target, too
        called += [node.get("target") if isinstance(node, dict) else node for node in found["nodes"]]
    for target in called:
        if not (isinstance(target, str) and _TARGETS.fullmatch(target)):
            raise UnsupportedError(f"{path}: calls {str(target)[:80]!r}, which is no operator of aten")
    if "expr_str" in found and not _harmless(found["expr_str"]):
        raise UsageError(f"{path}: {str(found['expr_str'])[:60]!r} is no plain size expression")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object, at any depth."""
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, dict):
            yield found
            stack.extend(found.values())
        elif isinstance(found, list):
            stack.extend(found)


def _leaves(text: str) -> int:
    """Values in a structure as torch's pytree writes it: ``[1, {type, context, children_spec}]``."""
    _, spec = json.loads(text)
    count, stack = 0, [spec]
    while stack:
        found = stack.pop()
        if found["type"] is None:
            count += 1
        stack.extend(found["children_spec"])
    return count


def _tuple(children: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "builtins.tuple", "context": "null", "children_spec": children}


def _spec(children: list[dict[str, Any]]) -> str:
    return json.dumps([1, _tuple(children)])


def _harmless(text: object) -> bool:
    """Whether a size expression holds nothing but numbers, symbols and known functions: no attribute, no other call."""
    if not isinstance(text, str) or len(text) > 10_000 or not _EXPRESSION.fullmatch(text):
        return False
    if _LARGE_POWER.search(text):
        return False
    return all(word in _WORDS or _NUMBERED.fullmatch(word) for word in _WORD.findall(text))
