"""The process of one candidate: loads it, runs it whenever a line arrives, and reports its own peak memory at the end.

The first line on stdin is JSON (``candidate``, ``inputs``: an .npz file, ``threads``, ``place``); then ``run`` or
``stop``. Every line gets one JSON line back: ``{"ready": true}``, ``{"seconds": s}``, ``{"peak": bytes}``, or
``{"error": text}`` after which the process ends.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from tsmerge_export.backends.onnxruntime.place import Place
from tsmerge_export.tools.bench.candidate import Candidate
from tsmerge_export.untrusted.isolated import own_channel

Arrays = dict[str, np.ndarray[Any, Any]]


def peak_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    try:  # the kernel's figure of this program alone; getrusage also counts the parent's pages before exec
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _onnxruntime(source: str, inputs: Arrays, threads: int, place: Place) -> Callable[[], object]:
    from tsmerge_export.backends.onnxruntime.direct import open_session

    session = open_session(Path(source), threads, timed=True, place=place)
    return lambda: session.run(None, inputs)


def _openvino(source: str, inputs: Arrays, threads: int) -> Callable[[], object]:
    from tsmerge_export.backends.openvino.network import compile_file

    network = compile_file(Path(source), threads)
    return lambda: network(inputs)


def _torch(
    source: str, inputs: Arrays, threads: int, options: dict[str, Any], component: str, compiled: bool
) -> Callable[[], object]:
    import torch

    from tsmerge_export import families
    from tsmerge_export.checkpoint import load_model

    torch.set_num_threads(threads)
    loaded = load_model(source, **options)
    model: Any = loaded.model.eval()
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("sdpa")
    part = next(c for c in families.get(loaded.family).components(model) if c.name == component)
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    call = torch.compile(part.eager) if compiled else part.eager

    def run() -> object:
        with torch.inference_mode():
            return call(model, tensors)

    return run


def prepare(order: dict[str, Any]) -> Callable[[], object]:
    """The call that is timed. ``order`` is the first line of the protocol."""
    candidate, threads = Candidate(**order["candidate"]), order["threads"]
    with np.load(order["inputs"]) as stored:
        inputs = candidate.fed({name: stored[name] for name in stored.files})
    source, kind = candidate.source, candidate.kind
    if kind == "onnxruntime":
        return _onnxruntime(source, inputs, threads, Place.from_dict(order["place"]))
    if kind == "openvino":
        return _openvino(source, inputs, threads)
    return _torch(source, inputs, threads, candidate.options, order["component"], kind == "compile")


def serve(lines: IO[str], answers: IO[str]) -> None:
    """Follow the protocol until ``stop``, the end of input, or an error."""

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        call = prepare(json.loads(lines.readline()))
        answer({"ready": True})
        for line in lines:
            if line.strip() == "stop":
                answer({"peak": peak_bytes()})
                return
            start = time.perf_counter()
            call()
            answer({"seconds": time.perf_counter() - start})
    except Exception as error:  # whatever a runtime raises becomes a row of the table
        text = " ".join(str(error).split()) or type(error).__name__
        answer({"error": text[:300]})


def main() -> None:
    """The process."""
    serve(sys.stdin, own_channel())
