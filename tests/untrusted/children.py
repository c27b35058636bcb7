"""A child process, and what it does."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tsmerge_export.errors import UsageError
from tsmerge_export.untrusted.isolated import Child, Limits

GIB = 2**30


def task(request: dict[str, Any]) -> dict[str, Any]:
    """Does in the child what the test asks for."""
    what = request["do"]
    if what == "echo":
        print("a library prints")
        print("and complains", file=sys.stderr)
        return {"echo": request["value"], "pid": os.getpid()}
    if what == "refuse":
        raise UsageError("this is\nthe user's fault")
    if what == "fail":
        raise RuntimeError("something\ninside")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "memory":
        return {"bytes": len(bytearray(request["value"]))}
    if what == "file":
        Path(request["value"]).write_bytes(bytes(10_000))
    if what == "chatter":
        return {"text": "x" * 4_000_000}
    time.sleep(600)
    return {}


def child(seconds: float = 60.0, memory: int = 4 * GIB) -> Child:
    return Child("tests.untrusted.children:task", "model.pt2", Limits(seconds, memory, 5_000))
