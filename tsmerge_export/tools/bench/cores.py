"""How near two processor cores are to each other: whether one finds in a shared cache what the other wrote."""

from __future__ import annotations

import os
import time

import numpy as np

#: A :func:`distance` from which on the two cores share no cache: measured 1.1 to 1.9 with, 3.3 to 3.6 without.
FAR = 2.5


def distance(rounds: int = 24, kib: int = 512) -> float | None:
    """Time to read memory that the other core wrote, over the time to read what the same core wrote.

    The host of a virtual machine places its processors on cores that share a cache or not, and moves them while the
    machine runs. Operators that pass much memory from one to the next with little work on it are slower with two
    threads on cores that share none; products of matrices hardly are. A benchmark with threads should say which it was.

    Args:
        rounds: of which the fastest counts. kib: read in each, in KiB; should fit the cache of one core.

    Returns:
        None with one core, or where a thread cannot choose its core (not Linux). Takes about 5 ms.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        return None
    here, there = sorted(allowed)[:2]
    memory = np.zeros(kib * 256, np.float32)
    fastest = {here: float("inf"), there: float("inf")}
    try:
        for _ in range(rounds):
            for writer in (here, there):
                os.sched_setaffinity(0, {writer})
                memory += 1
                os.sched_setaffinity(0, {there})
                start = time.perf_counter()
                memory.max()
                fastest[writer] = min(fastest[writer], time.perf_counter() - start)
    except OSError:
        return None
    finally:
        os.sched_setaffinity(0, allowed)
    return fastest[here] / fastest[there]
