"""Models as a whole, and files that are none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import onnx
from onnx import helper

from tests.hostile.attacks.graphs import (
    Write,
    changed,
    model,
    op,
    saved,
)


def attacks() -> Iterator[tuple[str, Write]]:
    good = model([op("Relu", ["a"])])

    def change(how: Callable[[onnx.ModelProto], object]) -> Write:
        return saved(changed(onnx.ModelProto.FromString(good.SerializeToString()), how))

    yield "valid", saved(good)
    for version in (-1, 0, 1, 999, 2**62):
        yield f"opset-{version}", change(lambda m, v=version: setattr(m.opset_import[0], "version", v))
        yield f"ir-version-{version}", change(lambda m, v=version: setattr(m, "ir_version", v))
    yield "opset-missing", change(lambda m: m.ClearField("opset_import"))
    yield "opset-twice", change(lambda m: m.opset_import.extend([helper.make_opsetid("ai.onnx", 11)]))
    yield "graph-missing", change(lambda m: m.ClearField("graph"))
    yield (
        "notes-odd",
        change(lambda m: m.graph.node[0].metadata_props.add(key="tsmerge.barrier", value="\x1b[31m")),
    )
    yield "training", change(lambda m: m.training_info.add().initialization.node.add(op_type="Relu"))
    yield "file-empty", lambda path: path.write_bytes(b"")
    yield "file-zeros", lambda path: path.write_bytes(bytes(10_000))
    yield "file-text", lambda path: path.write_text("<html>not found</html>" * 50)
    yield "file-json", lambda path: path.write_text("{}")
    yield "file-zip", lambda path: path.write_bytes(b"PK\3\4" + bytes(100))
    yield "file-folder", lambda path: path.mkdir()
    yield "file-pipe", os.mkfifo
    yield "file-link-to-itself", lambda path: path.symlink_to(path.name)
    yield "file-device", lambda path: path.symlink_to("/dev/zero")
    yield "file-deep", lambda path: path.write_bytes(_nested(20_000))


def _nested(depth: int) -> bytes:
    """Messages inside each other: graph, node, attribute, graph, ..."""
    out = b""
    for _ in range(depth):
        for field in (6, 5, 1):
            size, length = len(out), b""
            while size > 0x7F:
                length += bytes([size & 0x7F | 0x80])
                size >>= 7
            out = bytes([field << 3 | 2]) + length + bytes([size]) + out
        if len(out) > 60_000:
            break
    size = len(out)
    return b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + out
