"""ONNX Runtime sessions for validation and for timing."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort

from tsmerge_export.backends.onnxruntime.bounded import session_class
from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.untrusted.onnx_scan import check_file


def open_session(
    source: Path | onnx.ModelProto,
    threads: int | None = None,
    *,
    timed: bool = False,
    profile: Path | None = None,
    level: ort.GraphOptimizationLevel | None = None,
    arena: bool = True,
    place: Place = HERE,
) -> ort.InferenceSession:
    """ONNX Runtime, by default on the CPU, with its default optimisations unless ``level`` says otherwise.

    With the native operators, where the environment names their library: what runs is what is proved.

    Args:
        source: an .onnx file, or a model in memory.
        threads: intra-op threads; None is ONNX Runtime's choice.
        timed: for timings: within a run threads spin, as by default; after it they stop, or they would take the cores
            from the candidate that runs next. Otherwise they never spin, which leaves the cores to PyTorch.
        arena: keep memory for the next run; not worth it where there are many small sessions.
        profile: prefix of the profile that ``end_profiling`` writes.
        place: providers and the library of native operators.

    Raises:
        MissingDependencyError: the provider does not start. What ONNX Runtime raises for the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = arena
    if level is not None:
        options.graph_optimization_level = level
    entry = ("session.force_spinning_stop", "1") if timed else ("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(*entry)
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if isinstance(source, Path):
        kind = session_class(name for _, name in check_file(source).kinds())
        return place.start(kind, str(source), options)
    blocks = [*onnx_weights.graphs(source.graph), *source.functions]
    kind = session_class(node.op_type for block in blocks for node in block.node)
    if not onnx_weights.is_large(source):
        return place.start(kind, source.SerializeToString(), options)
    light, arrays = onnx_weights.apart(source)
    weights = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), weights)
    session = place.start(kind, light.SerializeToString(), options)
    session.tsmerge_weights = weights, arrays  # it uses their memory
    return session
