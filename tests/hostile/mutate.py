"""Byte mutations of files that are right: a graph, a bundle of it, the bundled demo's own, and a checkpoint."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.attacks.graphs import model, op
from tests.hostile.cases import export, hashes_made_new
from tests.models import tiny

_KINDS = ("graph", "graph", "graph", "graph", "bundle graph", "manifest", "checkpoint")


@dataclass(frozen=True)
class Mutation:
    """``kind``: graph (a file), bundle or checkpoint (folders)."""

    kind: str
    path: Path


class Sources:
    """The files that are mutated, made in ``folder`` on first use.

    Attributes:
        graph: an .onnx file. bundle: of it. checkpoint: a model folder.
    """

    def __init__(self, folder: Path) -> None:
        self.graph, self.bundle, self.checkpoint = folder / "g.onnx", folder / "bundle", folder / "checkpoint"
        if not self.graph.exists():
            made = model([op("LayerNormalization", ["a", "scale"], "l", axis=-1), op("Relu", ["l"])])
            scale = made.graph.initializer.add(
                name="scale", data_type=1, raw_data=bytes(28) + b"\0\0\x80\x3f"
            )
            scale.dims.append(8)
            self.graph.write_bytes(made.SerializeToString())
        if not self.bundle.exists():
            export(self.graph, self.bundle)
        if not self.checkpoint.exists():
            tiny("chronos-bolt").save_pretrained(self.checkpoint)

    def mutation(self, number: int, place: Path) -> Mutation:
        """The same number gives the same bytes."""
        rng = random.Random(number)
        kind = rng.choice(_KINDS)
        if kind == "graph":
            path = place / "m.onnx"
            path.write_bytes(_changed(self.graph.read_bytes(), rng))
            return Mutation("graph", path)
        if kind == "checkpoint":
            path = place / "checkpoint"
            shutil.copytree(self.checkpoint, path)
            _change(path / rng.choice(("config.json", "model.safetensors")), rng)
            return Mutation("checkpoint", path)
        path = place / "bundle"
        shutil.copytree(self.bundle, path)
        if kind == "manifest":
            _change(path / "manifest.json", rng)
        else:
            _change(path / "model.onnx", rng)
            hashes_made_new(path)
        return Mutation("bundle", path)


def _change(file: Path, rng: random.Random) -> None:
    file.write_bytes(_changed(file.read_bytes(), rng))


def _changed(data: bytes, rng: random.Random) -> bytes:
    """One to four places flipped, set, cut, doubled, swapped or filled."""
    out = bytearray(data)
    head = min(len(out), 20_000)  # headers and graphs come first; weights say little
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(head if rng.random() < 0.8 else len(out))
        how = rng.randrange(7)
        if how <= 1:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 3:
            del out[at : at + rng.randrange(1, 9)]
        elif how == 4:
            out[at:at] = out[at : at + rng.randrange(1, 65)]
        elif how == 5:
            out[at : at + 4] = rng.randbytes(4)
        else:
            other = rng.randrange(head)
            out[at : at + 4], out[other : other + 4] = out[other : other + 4], out[at : at + 4]
        if not out:
            out = bytearray(b"\0")
        head = min(head, len(out))
    return bytes(out)
