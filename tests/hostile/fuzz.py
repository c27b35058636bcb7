"""Attacks and byte mutations through inspect, export, validate and load: ``python -m tests.hostile.fuzz``.

Every case runs in a process that is watched over, with a time limit. Where that process hangs or dies, the case runs
again as the product would run it, with risky work in a process of its own; what counts is how that ends. Exit code 1
where anything was unexpected, hung, died, or wrote to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.hostile.attacks import attacks
from tests.hostile.cases import GOOD
from tests.hostile.mutate import Sources
from tsmerge_export.untrusted.isolated import Ended, LineProcess

_MOST_CASES = 1000  # what libraries keep of each adds up


class Watched:
    """A worker that is started again after it hung or died, and now and then."""

    def __init__(self, folder: Path, seconds: float, limit: float | None = None) -> None:
        self._code = f"from tests.hostile.worker import main; main({str(folder)!r}, {limit!r})"
        self._seconds = seconds
        self._process: LineProcess | None = None
        self._cases = 0

    def run(self, case: str) -> dict[str, str]:
        """Operation -> outcome; ``process``: what became of it where it gave none."""
        self._cases += 1
        if self._cases % _MOST_CASES == 0:
            self.close()
        first = self._process is None
        self._process = self._process or LineProcess(self._code)
        try:
            return {str(k): str(v) for k, v in self._process.ask(case, self._seconds + 120 * first).items()}
        except Ended as error:
            self._process = None
            return {"process": f"unexpected: {error}"}

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None


def run(cases: list[str], folder: Path, seconds: float, workers: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Every case with its outcomes, in the order in which they end.

    Args:
        seconds: that one case may take; where it runs again, that the product gives a process of its own.
    """
    queue: SimpleQueue[str] = SimpleQueue()
    done: SimpleQueue[tuple[str, dict[str, str]]] = SimpleQueue()
    for case in cases:
        queue.put(case)

    def work() -> None:
        fast, product = Watched(folder, seconds), Watched(folder, 10 * seconds, limit=seconds)
        while True:
            try:
                case = queue.get_nowait()
            except Empty:
                break
            found = fast.run(case)
            if "process" in found:
                again = product.run(case)
                found = again | {"alone": found["process"].removeprefix("unexpected: ")}
            done.put((case, found))
        fast.close()
        product.close()

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    for _ in cases:
        yield done.get()


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=5_000, help="number of mutations (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="mutation n has seed + n (default: 0)")
    parser.add_argument("--seconds", type=float, default=60, help="limit of a case (default: 60)")
    parser.add_argument("--workers", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument("--no-attacks", action="store_true", help="mutations alone")
    parser.add_argument("--only", metavar="NAME", help="one attack, or the mutation of that number")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="every case with its outcomes, a JSON line each"
    )
    options = parser.parse_args(arguments)
    cases = [] if options.no_attacks else [f"attack {name}" for name in attacks()]
    cases += [f"mutation {options.seed + n}" for n in range(options.mutations)]
    if options.only is not None:
        cases = [("mutation " if options.only.isdecimal() else "attack ") + options.only]
    counts: Counter[tuple[str, str]] = Counter()
    bad = contained = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tsmerge-fuzz-") as folder:
        Sources(Path(folder))
        for number, (case, found) in enumerate(run(cases, Path(folder), options.seconds, options.workers), 1):
            contained += found.pop("alone", None) is not None
            for what, how in found.items():
                kind = how.partition(":")[0]
                counts[what, kind] += 1
                if kind not in GOOD:
                    bad += 1
                    print(f"{case}: {what}: {how}", flush=True)
            if options.log is not None:
                with options.log.open("a") as log:
                    log.write(json.dumps({"case": case, **found}) + "\n")
            if number % 100 == 0 or number == len(cases):
                rate = number / (time.monotonic() - start)
                print(
                    f"{number} of {len(cases)}, {rate:.1f} a second, {bad} bad", file=sys.stderr, flush=True
                )
    for (what, kind), count in sorted(counts.items()):
        print(f"{what:<12} {kind:<12} {count}")
    print(
        f"{len(cases)} cases, {bad} unexpected, {contained} would have hung or killed the process that runs them"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
