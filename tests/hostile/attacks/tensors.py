"""Weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnx import TensorProto

from tests.hostile.attacks.graphs import (
    Write,
    changed,
    model,
    op,
    saved,
    weights,
)


def attacks() -> Iterator[tuple[str, Write]]:
    def weight(change: Callable[[Any], object]) -> Write:
        made = model([op("Relu", ["a"])])
        change(made.graph.initializer[0])
        return saved(made)

    for name, dims in {
        "negative": [-8, -8], "short": [8, 9], "long": [8, 7], "65-dims": [1] * 64 + [64], "huge": [2**40, 2**40],
        "none": [], "overflow": [2**33, 2**33, 0],
    }.items():  # fmt: skip
        yield f"weight-dims-{name}", weight(lambda t, d=dims: (t.ClearField("dims"), t.dims.extend(d)))
    for kind in (0, 8, 14, 17, 22, 23, 99):
        yield f"weight-element-{kind}", weight(lambda t, k=kind: setattr(t, "data_type", k))
    yield "weight-no-data", weight(lambda t: t.ClearField("raw_data"))
    yield "weight-segment", weight(lambda t: setattr(t.segment, "end", 5))

    def external(location: str, **more: str) -> Write:
        def write(path: Path) -> None:
            made = model([op("Relu", ["a"])])
            tensor = made.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in {"location": location, "length": "256", **more}.items():
                tensor.external_data.add(key=key, value=value)
            for name, target in (("loop", "loop"), ("first", "second"), ("second", "first"), ("up", "..")):
                if not (path.parent / name).is_symlink():
                    (path.parent / name).symlink_to(target)
            (path.parent / "short").write_bytes(bytes(16))
            path.write_bytes(made.SerializeToString())

        return write

    for location in ("loop", "first", "loop/x", "up/x", "../x", "/etc/hostname", "/dev/zero", "", ".", "\0", "short",
                     "nobody", "a\\b", "x" * 5000, "\x1b[31m"):  # fmt: skip
        yield f"external-{location[:12]!r}-{len(location)}", external(location)
    for key, value in (
        ("offset", "-1"),
        ("offset", "9" * 30),
        ("offset", "one"),
        ("length", "-5"),
        ("length", "9" * 5000),
    ):
        yield f"external-{key}-{value[:8]}-{len(value)}", external("short", **{key: value})
    yield (
        "weight-sparse",
        saved(
            changed(
                model([op("Relu", ["a"])]),
                lambda m: m.graph.sparse_initializer.add().values.CopyFrom(weights()[0]),
            )
        ),
    )
    yield "weight-twice", saved(model([op("Relu", ["a"])], constants=weights()))
