"""ORT format: what ONNX Runtime's optimiser makes of a file, written down, so that loading does not do it again.

Model-local functions are written out by ONNX Runtime itself, since its own format has none: a portable file becomes
standard operators and ONNX Runtime's fused ones. With the library of native operators their nodes stay, and what loads
the file needs that library.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from tsmerge_export.backends.onnxruntime import native
from tsmerge_export.backends.onnxruntime.place import CPU
from tsmerge_export.errors import UnsupportedError, first_line

#: Lays out convolutions for the machine that converts; ONNX Runtime's own tool leaves it out, too.
_LEFT_OUT = ["NchwcTransformer"]


def open_portable(
    file: Path, threads: int | None, plugin: Path | None, save: Path | None = None
) -> ort.InferenceSession:
    """A session of a file in either format on the CPU, with the optimisations that hold for any machine.

    Args:
        file: ``.onnx`` or ``.ort``. plugin: library of native operators; None: there is none.
        save: also write it there in ORT format.

    Raises:
        UnsupportedError: ONNX Runtime cannot load the file, or the library. MissingDependencyError: that is not there.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    if save is not None:
        options.optimized_model_filepath = str(save)
        options.add_session_config_entry("session.save_model_format", "ORT")
    native.register(options, native.NONE if plugin is None else plugin)
    try:
        return ort.InferenceSession(str(file), options, providers=[CPU], disabled_optimizers=_LEFT_OUT)
    except Exception as error:  # ONNX Runtime has no common base class for its errors
        reason = native.lacking(first_line(error), (CPU,)) or first_line(error)
        raise UnsupportedError(f"{file}: ONNX Runtime {ort.__version__} cannot load it: {reason}") from error
