"""A back end outside tsmerge-export: the portable file with another name inside, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnx

from tsmerge_export.backends import Providers
from tsmerge_export.backends.base import Backend, Part, Told
from tsmerge_export.backends.describe import Block, Code, Grid, Heading, Text
from tsmerge_export.backends.onnxruntime.session import Session
from tsmerge_export.backends.target import Target
from tsmerge_export.bundle import Bundle
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig


class Toy(Backend):
    """See the module."""

    name = "toy"
    without: ClassVar[Mapping[str, str]] = {"inline": ", which has functions", "dtype": "; leave it out"}

    def check(self, target: Target, merge: MergeConfig) -> None:
        if merge.method == "dynamic":
            raise UnsupportedError("--merge dynamic is none of the toy's")

    def lower(self, portable: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
        out = onnx.ModelProto()
        out.CopyFrom(portable)
        out.graph.name = "toy"
        return out

    def build(
        self, target: Target, parts: Sequence[Part], folder: Path, scratch: Path, told: Told
    ) -> dict[str, Any]:
        entries = {}
        for part in parts:
            onnx.save(self.lower(onnx.load(part.merged), target.dtype), folder / "toy.onnx")
            entries[part.name] = {
                "onnx": "toy.onnx",
                "parity": part.prove.file(folder / "toy.onnx"),
                "box": "no",
            }
        told(len(parts), len(parts))
        return {"runtime": self.name, "dtype": target.dtype, "components": entries}

    def load(
        self, bundle: Bundle, threads: int | None, providers: Providers | None, plugin: str | Path | None
    ) -> Session:
        return Session(bundle, threads=threads, files={"model": bundle.file("toy.onnx")})

    def limits(self, where: str) -> str:
        return f"A toy was looked at by {where}."

    def describe(self, target: Mapping[str, Any]) -> Sequence[Block]:
        return [
            Text("Not for children.", caveat=True), Heading("Its files"), Code("play toy.onnx"),
            Grid("Toys", ("what", "how many"), [("file", "1")], short="toys"),
            Text("A box is missing.", told=[f"toy: {target['components']['model']['box']} box"]),
        ]  # fmt: skip
