"""The process in which cases run, a JSON line for each. See :mod:`.fuzz`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from tests.hostile.attacks import attacks
from tests.hostile.cases import outcome, touch_bundle, touch_graph
from tests.hostile.mutate import Sources
from tsmerge_export.untrusted import isolated

_MEMORY = 8 * 2**30  # bytes: what takes more fails, and takes nothing from others


def main(directory: str, seconds: float | None) -> None:
    """Answer ``attack NAME`` and ``mutation NUMBER`` with a JSON object of operations and outcomes.

    Args:
        directory: with the files that are mutated.
        seconds: run risky work in processes of its own, as the product does, with that limit; None: in this one, which
            is watched over as well, and faster.
    """
    isolated.die_with_parent()
    channel, folder = isolated.own_channel(), Path(directory)
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, resource.RLIM_INFINITY))
    isolated.inside = seconds is None
    os.environ["TSMERGE_MAX_SECONDS"] = str(
        seconds or 20
    )  # in this process, what is foretold to take longer is left
    noise = tempfile.TemporaryFile()  # noqa: SIM115
    os.dup2(noise.fileno(), 2)
    torch.set_num_threads(1)
    known, sources = attacks(), Sources(folder)
    for line in sys.stdin:
        kind, _, name = line.strip().partition(" ")
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            place = Path(scratch)
            if kind == "attack":
                file = place / "in" / "m.onnx"
                file.parent.mkdir()
                known[name](file)
                found = touch_graph(file, place / "out", sources.bundle)
            else:
                found = _mutation(int(name), sources, place)
        size = os.lseek(noise.fileno(), 0, os.SEEK_END)
        if size:
            found["stderr"] = f"unexpected: {os.pread(noise.fileno(), 300, 0)!r}"
            os.ftruncate(noise.fileno(), 0)
        channel.write(json.dumps(found) + "\n")
        channel.flush()


def _mutation(number: int, sources: Sources, place: Path) -> dict[str, str]:
    changed = sources.mutation(number, place)
    if changed.kind == "graph":
        return touch_graph(changed.path, place / "out", sources.bundle)
    if changed.kind == "bundle":
        return touch_bundle(changed.path, sources.graph)
    from tsmerge_export.checkpoint import load_model

    found = {"load model": outcome(lambda: load_model(changed.path))}
    shutil.rmtree(changed.path, ignore_errors=True)
    return found
