"""One-node models of the operators, for ONNX Runtime and the other runtimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import parser

from tests.cases import TOLERANCES, Case, compare_with_oracle
from tsmerge_export import ops
from tsmerge_export.backends.onnxruntime import native

_ONNX = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}


def merge_model(
    attributes: Mapping[str, int | float],
    dtype: str = "float32",
    opset: int = 18,
    op_type: str = "LocalMerge",
) -> onnx.ModelProto:
    """A model ``(x, metric, size) -> (y, size_out, kept, target)`` of one merge node, checked.

    With ``run_time`` among the attributes it has the input ``merge_ratio`` too, and outputs ``share [2]`` last.

    bfloat16 goes in and out as float32 (numpy has no bfloat16) and is cast around the node; that is exact.
    """
    outer = "float" if dtype == "bfloat16" else _ONNX[dtype]
    element = getattr(onnx.TensorProto, dtype.upper() if dtype != "float32" else "FLOAT")
    settings = ", ".join(f"{name} = {value}" for name, value in attributes.items())
    chosen = bool(attributes.get("run_time"))
    model = parser.parse_model(f"""
        <ir_version: {ops.MIN_IR_VERSION}, opset_import: ["" : {opset}, "{ops.DOMAIN}" : {ops.VERSION}]>
        merge ({outer}[B, N, D] x, {outer}[B, N, Dm] metric, float[B, N] size{", float merge_ratio" * chosen})
            => ({outer}[B, M, D] y, float[B, M] size_out, int64[B, M] kept, int64[B, N] target
                {", int64[2] share" * chosen})
        {{
            x_in = Cast<to = {element}>(x)
            metric_in = Cast<to = {element}>(metric)
            {f"share = {ops.DOMAIN}.ExactRatio(merge_ratio)" * chosen}
            y_out, size_out, kept, target
                = {ops.DOMAIN}.{op_type}<{settings}>(x_in, metric_in, size{", share" * chosen})
            y = CastLike(y_out, x)
        }}""")
    add_functions(model, opset)
    onnx.checker.check_model(model, full_check=True)
    return model


def add_functions(model: onnx.ModelProto, opset: int = 18) -> None:
    """Give every node of domain ``tsmerge`` its overload, and the model the functions that they need."""
    have: set[tuple[str, str]] = set()
    for node in model.graph.node:
        if node.domain != ops.DOMAIN:
            continue
        attributes = ops.attributes_of(node)
        node.overload = ops.variant_key(node.op_type, attributes)
        if (node.op_type, node.overload) not in have:
            have.add((node.op_type, node.overload))
            model.functions.append(ops.function(node.op_type, attributes, opset=opset))


def native_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same without functions of merges: it runs by the native operators, or not at all."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    kept = [function for function in out.functions if function.name not in ops.merge_op_types()]
    del out.functions[:]
    out.functions.extend(kept)
    return out


def session(
    model: onnx.ModelProto,
    threads: int = 1,
    plugin: Path | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    **options: object,
) -> ort.InferenceSession:
    """A session of ONNX Runtime with its default optimisations."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    for name, value in options.items():
        setattr(settings, name, value)
    native.register(settings, plugin, providers)
    return ort.InferenceSession(model.SerializeToString(), settings, providers=list(providers))


@lru_cache(maxsize=512)
def _case_session(
    op_type: str,
    attributes: tuple[tuple[str, int | float], ...],
    dtype: str,
    plugin: Path | None,
    threads: int,
    providers: tuple[str, ...],
) -> ort.InferenceSession:
    model = merge_model(dict(attributes), dtype, op_type=op_type)
    return session(model if plugin is None else native_form(model), threads, plugin, providers)


def feed(case: Case) -> dict[str, np.ndarray]:
    """Inputs of :func:`merge_model` for a case; bfloat16 widened to float32."""
    x, metric, size = case.arrays()
    if case.dtype == "bfloat16":
        x, metric = x.astype(np.float32), metric.astype(np.float32)
    return {"x": x, "metric": metric, "size": size}


def run_case(
    case: Case,
    plugin: Path | None = None,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> tuple[np.ndarray, ...]:
    """``(y widened to float32, size, kept, target)`` from ONNX Runtime; one session per attributes and type.

    Args:
        plugin: the library of native operators, which then run instead of the functions.
    """
    attributes = tuple(sorted(case.attributes.items()))
    run = _case_session(case.op_type, attributes, case.dtype, plugin, threads, tuple(providers))
    y, size, kept, target = run.run(None, feed(case))
    return y.astype(np.float32), size, kept, target


def difference(case: Case, given: tuple[np.ndarray, ...]) -> str | None:
    """What differs from the reference; ``"flip"`` where a decision hung on less than float noise; None is equality."""
    merged = case.reference()
    y, size, kept, target = given
    if kept.shape != tuple(merged.kept.shape):
        if case.data_dependent and not case.exact and compare_with_oracle(case, given) in ("flip", None):
            return "flip"
        return f"kept has shape {kept.shape}, reference {tuple(merged.kept.shape)}"
    if not (np.array_equal(kept, merged.kept) and np.array_equal(target, merged.target)):
        if not case.exact and compare_with_oracle(case, given) in ("flip", None):
            return "flip"
        expected_indices = f"{merged.kept.tolist()} {merged.target.tolist()}"
        return f"kept and target {kept.tolist()} {target.tolist()}, reference {expected_indices}"
    if not np.array_equal(size, merged.size):
        return f"size {size.tolist()}, reference {merged.size.tolist()}"
    expected = merged.y.float().numpy()
    atol, rtol = TOLERANCES[case.dtype]
    atol *= float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    if not np.allclose(y, expected, atol=atol, rtol=rtol, equal_nan=True):
        return f"y {y.tolist()}, reference {expected.tolist()}"
    # Tokens that nothing real went into: bit for bit (a NaN is a NaN: bfloat16 arrives by way of casts).
    untouched = (merged.size == torch.from_numpy(case.arrays()[2]).gather(1, merged.kept)).numpy()
    same = y.view(np.int32) == expected.view(np.int32)
    if not (same | (np.isnan(y) & np.isnan(expected)))[untouched].all():
        return "an unmerged token changed"
    return None
