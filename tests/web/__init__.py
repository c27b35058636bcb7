"""Runs ONNX models in onnxruntime-web under node, for tests.

Set up once with ``npm ci --prefix tests/web``; without node or that package, :func:`missing` says why.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

HERE = Path(__file__).parent


def missing() -> str | None:
    """Why onnxruntime-web cannot run here, or None when it can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (HERE / "node_modules" / "onnxruntime-web").is_dir():
        return "onnxruntime-web is not installed: npm ci --prefix tests/web"
    return None


def run(
    model: onnx.ModelProto | str | Path, feeds: Sequence[Mapping[str, np.ndarray]], *, timeout: float = 600
) -> list[dict[str, np.ndarray]]:
    """Run a model on each of ``feeds`` in one WebAssembly session.

    Args:
        model: the model, or the path of a file without external data.
        feeds: one mapping from input name to array (float16/32/64, int8/32/64, uint8, bool) per run.
        timeout: seconds for the whole process.

    Returns:
        Per feed the outputs by name, in the model's order.

    Raises:
        RuntimeError: the model does not load or does not run; the message ends with what onnxruntime-web said.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = Path(model) if isinstance(model, str | Path) else work / "model.onnx"
        if isinstance(model, onnx.ModelProto):
            path.write_bytes(model.SerializeToString())
        described = []
        for number, feed in enumerate(feeds):
            tensors = []
            for index, (name, value) in enumerate(feed.items()):
                file = work / f"feed-{number}-{index}.bin"
                file.write_bytes(np.ascontiguousarray(value).tobytes())
                tensors.append(
                    {"name": name, "type": str(value.dtype), "dims": list(value.shape), "file": str(file)}
                )
            described.append(tensors)
        job = work / "job.json"
        job.write_text(json.dumps({"model": str(path.resolve()), "output": folder, "feeds": described}))
        command = ["node", str(HERE / "run.mjs"), str(job)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=HERE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"onnxruntime-web failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        result = json.loads((work / "result.json").read_text())
        return [
            {
                out["name"]: np.frombuffer(Path(out["file"]).read_bytes(), dtype=out["type"]).reshape(
                    out["dims"]
                )
                for out in outputs
            }
            for outputs in result["feeds"]
        ]
