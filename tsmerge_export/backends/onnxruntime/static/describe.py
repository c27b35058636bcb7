"""What a bundle of one shape says, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tsmerge_export.backends.describe import Block, Code, Grid, Text

_GRAPH = """import numpy as np, onnxruntime as ort
session = ort.InferenceSession("{file}", providers=[("CUDAExecutionProvider", {{"enable_cuda_graph": "1"}})])
binding = session.io_binding()
inputs = {{{inputs}}}
for name, value in inputs.items():
    binding.bind_ortvalue_input(name, value)
outputs = {{{outputs}}}
for name, value in outputs.items():
    binding.bind_ortvalue_output(name, value)
session.run_with_iobinding(binding)  # captured; the next runs replay it: inputs["..."].update_inplace(array) first"""


def blocks(target: Mapping[str, Any]) -> list[Block]:
    """What was proved, what a CUDA graph needs, and the program that makes one.

    Args:
        target: the manifest's entry.
    """
    shape = target["static"]
    rows = [
        (
            name, entry["onnx"], str(entry["parity"]["rows"]), f"{entry['parity']['max_rel'] or 0:.1e}",
            f"{entry['nodes_before']} -> {entry['nodes']}",
        )
        for name, entry in target["components"].items()
    ]  # fmt: skip
    left = sum((Counter(entry["on_the_cpu"]) for entry in target["components"].values()), Counter[str]())
    against = (
        next(iter(target["components"].values()))["parity"].get("against") or "eager PyTorch with merging"
    )
    out: list[Block] = [
        Text("The file has not run on a GPU.", caveat=True),
        Text(
            f"Made for {shape['batch']} series of length {shape['length']} a call: every length is a constant in the "
            f"file. It was proved at that shape against {against}; merge cost and times are those of the form for any "
            "shape, at that length and batch."
        ),
        Grid(
            "One shape", ("component", "file", "rows compared", "largest relative error", "nodes of the graph"), rows,
            short=f"one shape, {shape['batch']}x{shape['length']}",
        ),
    ]  # fmt: skip
    if left:
        named = ", ".join(f"{kind} ({n})" for kind, n in sorted(left.items()))
        out.append(
            Text(
                f"ONNX Runtime's CUDA provider has no kernels for {named}: they would run on the CPU, and "
                "enable_cuda_graph refuses the file."
            )
        )
        return out
    for entry in target["components"].values():
        out += [
            Text(
                "All of its nodes have kernels in ONNX Runtime's CUDA provider, so that it can run as a CUDA graph:"
            ),
            Code(_program(entry)),
        ]
    return out


def _program(entry: Mapping[str, Any]) -> str:
    inputs = ", ".join(
        f'"{name}": ort.OrtValue.ortvalue_from_shape_and_type({list(sizes["opt"])}, np.{entry["types"][name]}, "cuda")'
        for name, sizes in entry["profile"].items()
    )
    outputs = ", ".join(
        f'"{name}": ort.OrtValue.ortvalue_from_shape_and_type({list(shape)}, np.{entry["types"][name]}, "cuda")'
        for name, shape in entry["results"].items()
    )
    return _GRAPH.format(file=entry["onnx"], inputs=inputs, outputs=outputs)
