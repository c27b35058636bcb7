"""The process in which TensorRT-RTX builds: ``python -m ... SPEC``, a JSON object. See :mod:`.tensorrt_rtx`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> int:
    """Build and write the engine; prints lines ``error ...``, ``info ...``, ``result {...}``. Returns the exit code."""
    import tensorrt_rtx as trt

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            kind = "error" if severity <= trt.ILogger.Severity.ERROR else "info"
            if severity <= trt.ILogger.Severity.INFO:
                print(kind, " ".join(message.split()), flush=True)

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(spec["model"]):
        return 1
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shapes in spec["shapes"].items():
        profile.set_shape(name, *map(tuple, shapes))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = len(spec["capabilities"])
    for number, name in enumerate(spec["capabilities"]):
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{name}"), number)
    start = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        return 1
    Path(spec["engine"]).write_bytes(engine)
    print(
        "result",
        json.dumps({"seconds": round(time.monotonic() - start, 3), "version": trt.__version__}),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
