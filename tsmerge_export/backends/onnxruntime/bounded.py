"""ONNX Runtime sessions that come to an end: a loop whose number of turns depends on data may have none."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import onnxruntime as ort

from tsmerge_export.untrusted.isolated import seconds_allowed

ort.set_default_logger_severity(4)  # what it logs is not for users, and in colour


class BoundedSession(ort.InferenceSession):  # type: ignore[misc, unused-ignore]
    """A session whose runs are ended after ``TSMERGE_MAX_SECONDS``: ONNX Runtime looks at a flag between operators."""

    def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
        """As of ``InferenceSession``; ONNX Runtime's own error says that the flag was set."""
        options = ort.RunOptions() if run_options is None else run_options
        options.log_severity_level = 4
        timer = threading.Timer(seconds_allowed(), setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return super().run(output_names, input_feed, options)
        finally:
            timer.cancel()


def session_class(op_types: Iterable[str]) -> type[ort.InferenceSession]:
    """The class for a graph with these operators."""
    return BoundedSession if "Loop" in set(op_types) else ort.InferenceSession
