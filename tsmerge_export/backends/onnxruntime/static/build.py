"""Makes the files of a bundle for one shape, each proved at it before it takes the portable file's place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnx import helper

from tsmerge_export.backends.base import Part, Told
from tsmerge_export.backends.onnxruntime.static.cuda import on_the_cpu
from tsmerge_export.backends.onnxruntime.static.fold import known
from tsmerge_export.backends.onnxruntime.static.form import static_form
from tsmerge_export.backends.target import Target
from tsmerge_export.onnx_model import weights


def build_static(target: Target, parts: Sequence[Part], scratch: Path, told: Told) -> dict[str, Any]:
    """Write the form of every part over its portable file.

    Args:
        target: of one shape. scratch: for files that are not part of the bundle.

    Returns:
        The manifest's ``target`` without the runtime.

    Raises:
        UnsupportedError: a length follows from the data. VerdictError: the form computes something else.
    """
    assert target.static is not None
    entries = {}
    for done, part in enumerate(parts):
        assert part.shapes is not None
        portable = weights.read(part.merged)
        form = static_form(portable, part.shapes, part.name)
        file = scratch / f"{part.name}.static.onnx"
        weights.write_model(form, file)
        verdict = part.prove.at(file, target.static)
        weights.write_model(form, part.merged)
        entries[part.name] = {
            "profile": {
                name: {key: list(shape) for key in ("min", "opt", "max")}
                for name, shape in part.shapes.items()
            },
            "onnx": part.merged.name,
            "parity": verdict,
            "types": {
                value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
                for value in (*form.graph.input, *form.graph.output)
            },
            "results": {value.name: list(known(value.type) or ()) for value in form.graph.output},
            "nodes_before": len(portable.graph.node),
            "nodes": len(form.graph.node),
            "on_the_cpu": dict(on_the_cpu(form)),
        }
        told(done + 1, len(parts))
    shape = {"batch": target.static.batch, "length": target.static.length}
    return {"dtype": target.dtype, "static": shape, "components": entries}
