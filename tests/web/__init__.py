"""Runs ONNX models in onnxruntime-web under node, for tests.

Set up once with ``npm ci --prefix tests/web``; without node or that package, :func:`missing` says why.
"""

from __future__ import annotations

import atexit
import json
import select
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

HERE = Path(__file__).parent
#: Of V8: WebAssembly by the baseline compiler alone. The optimising one takes three seconds of CPU for a runtime that
#: runs for a tenth of one, and computes the same: WebAssembly leaves a compiler no choice but the bits of NaN.
_V8 = ("--liftoff-only",)


def missing() -> str | None:
    """Why onnxruntime-web cannot run here, or None when it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (HERE / "node_modules" / "onnxruntime-web").is_dir():
        return "onnxruntime-web is not installed: npm ci --prefix tests/web"
    return None


class _Node:
    """A node process that runs jobs one after the other; it is started for the first, and anew after a failure."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, job: Path, timeout: float) -> None:
        """Let it do the job in this file; raises RuntimeError."""
        if self._process is None:
            self._process = subprocess.Popen(
                ["node", *_V8, str(HERE / "run.mjs")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE,
            )  # fmt: skip
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{job}\n")
        stdin.flush()
        answered = select.select([stdout], [], [], timeout)[0]
        said = stdout.readline() if answered else ""
        if said != '"done"\n':
            self.stop()
            why = (
                json.loads(said)["error"]
                if said
                else "it ended"
                if answered
                else f"no answer for {timeout} s"
            )
            raise RuntimeError(f"onnxruntime-web failed: {why[-2000:]}")

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


_node = _Node()
atexit.register(_node.stop)


def run(
    model: onnx.ModelProto | str | Path, feeds: Sequence[Mapping[str, np.ndarray]], *, timeout: float = 600
) -> list[dict[str, np.ndarray]]:
    """Run one model on each of ``feeds``; see :func:`run_many`."""
    return run_many([(model, feeds)], timeout=timeout)[0]


def run_many(
    jobs: Sequence[tuple[onnx.ModelProto | str | Path, Sequence[Mapping[str, np.ndarray]]]],
    *,
    timeout: float = 600,
) -> list[list[dict[str, np.ndarray]]]:
    """Run models on feeds, in the node process that this one keeps (starting it takes longer than a small model).

    Args:
        jobs: models, or paths of files without external data, each with its feeds: mappings from input name to
            array (float16/32/64, int8/32/64, uint8, bool).
        timeout: seconds for all of them.

    Returns:
        Per job and feed the outputs by name, in the model's order.

    Raises:
        RuntimeError: a model does not load, does not run, or takes longer; the message ends with what onnxruntime-web
            said.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        described = []
        for job_number, (model, feeds) in enumerate(jobs):
            path = work / f"{job_number}.onnx" if isinstance(model, onnx.ModelProto) else Path(model)
            if isinstance(model, onnx.ModelProto):
                path.write_bytes(model.SerializeToString())
            tensors: list[list[dict[str, Any]]] = []
            for number, feed in enumerate(feeds):
                tensors.append([])
                for index, (name, value) in enumerate(feed.items()):
                    file = work / f"{job_number}-feed-{number}-{index}.bin"
                    file.write_bytes(np.ascontiguousarray(value).tobytes())
                    tensors[-1].append(
                        {"name": name, "type": str(value.dtype), "dims": list(value.shape), "file": str(file)}
                    )
            described.append({"model": str(path.resolve()), "feeds": tensors})
        job = work / "job.json"
        job.write_text(json.dumps({"output": folder, "jobs": described}))
        _node.run(job, timeout)
        result = json.loads((work / "result.json").read_text())
        return [
            [{out["name"]: _read(out) for out in outputs} for outputs in feeds] for feeds in result["jobs"]
        ]


def _read(described: Mapping[str, Any]) -> np.ndarray:
    raw = Path(described["file"]).read_bytes()
    return np.frombuffer(raw, dtype=described["type"]).reshape(described["dims"])
