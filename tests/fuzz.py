"""A longer search than the property suites: ``python -m tests.fuzz --cases 100000``.

Every case is run by the reference, by the function body in ONNX Runtime and by the naive oracle; body against reference
and reference against oracle are compared as in the tests. With ``--plugin`` the native operators of that library run
instead of the functions. Ends with exit code 1 and the case to reproduce at the first difference. Decisions that hang
on less than float noise are counted, not failed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.cases import Case, compare_with_oracle, random_case
from tests.ops.harness import difference, run_case
from tests.problems import CASES


def check(case: Case, plugin: Path | None = None, threads: int = 1) -> tuple[str | None, str | None]:
    """(reference against oracle, body against reference); see :func:`tests.cases.compare_with_oracle`."""
    return compare_with_oracle(case, case.outcome()), difference(case, run_case(case, plugin, threads))


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="number of cases (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed; case n uses seed + n (default: 0)")
    parser.add_argument("--tokens", type=int, default=40, help="longest row (default: 40)")
    parser.add_argument("--method", choices=CASES, default="local", help="merging method (default: local)")
    parser.add_argument("--features", type=int, default=6, help="most features (default: 6)")
    parser.add_argument("--batch", type=int, default=3, help="most rows (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime (default: 1)")
    parser.add_argument("--plugin", type=Path, help="libtsmerge_ort.so, for local and dynamic merging")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    columns = (
        TextColumn("fuzz"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    counts: Counter[str] = Counter()
    with Progress(*columns, TextColumn("{task.description}")) as progress:
        task = progress.add_task("", total=options.cases)
        for number in range(options.cases):
            rng = np.random.default_rng(options.seed + number)
            case = random_case(
                rng,
                tokens=options.tokens,
                features=options.features,
                batch=options.batch,
                of=CASES[options.method],
            )
            for pair, problem in zip(
                ("reference against oracle", "body against reference"),
                check(case, options.plugin, options.threads),
                strict=True,
            ):
                if problem == "flip":
                    counts[pair] += 1
                elif problem is not None:
                    progress.stop()
                    print(f"seed {options.seed + number}: {pair}: {case}\n{problem}", file=sys.stderr)
                    return 1
            progress.update(task, advance=1, description=f"{sum(counts.values())} flips")
    flips = ", ".join(f"{pair} {count}" for pair, count in sorted(counts.items())) or "none"
    print(f"{options.cases} cases equal; decisions within float noise: {flips}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
