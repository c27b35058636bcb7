"""The forms of a bundle for other runtimes against the portable file, which the verdict has proved.

A form cannot always be run: TensorRT's has plugin nodes, and a lower precision has errors of its own. But it follows
from the portable file, step by step; so the steps are taken again, and the result must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from tsmerge_export import backends
from tsmerge_export.backends.base import Backend
from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import MissingDependencyError
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.verify import settings
from tsmerge_export.version import versions

#: What writes a form: with others it may look different and be the same.
_WRITERS = ("tsmerge-export", "onnx", "onnx-graphsurgeon")


def faults(bundle: Bundle, plan: Mapping[int, MergeStep]) -> list[str]:
    """What is wrong with the forms of a bundle, a line each; none where it has none.

    Plugin nodes must have the attributes of the plan. Where the bundle was written with the versions that run now, the
    whole form must be what the portable file lowers to.

    Raises:
        UsageError: a back end that is not known, or a file that the manifest does not list.
    """
    target = bundle.contents.target
    if target is None:
        return []
    backend, dtype = backends.get(target.runtime), target.dtype
    out = []
    for name, part in target.components.items():
        file = part.onnx
        form, portable = bundle.file(file), bundle.component(name).file
        if backend.node is not None:
            out += [f"{file}: {fault}" for fault in settings.faults(form, plan)]
        if not out and _same_writers(bundle) and not _follows(form, portable, backend, dtype):
            out.append(
                f"{file}: is not what {portable.name} becomes for {backend.name}; export the bundle again"
            )
    return out


def _same_writers(bundle: Bundle) -> bool:
    made, now = bundle.contents.versions, versions()
    return all(made.get(name) == now.get(name) for name in _WRITERS)


def _follows(form: Path, portable: Path, backend: Backend, dtype: str) -> bool:
    try:
        made = backend.lower(onnx.load(portable), dtype)
    except (KeyError, MissingDependencyError):  # a dtype of another version, or a tool is not here
        return True
    found = onnx.load(form)
    return bool(
        made.graph.SerializeToString(deterministic=True) == found.graph.SerializeToString(deterministic=True)
        and _functions(made) == _functions(found)
    )


def _functions(model: onnx.ModelProto) -> list[bytes]:
    return [function.SerializeToString(deterministic=True) for function in model.functions]
