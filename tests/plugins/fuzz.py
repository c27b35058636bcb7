"""The kernels under emulation on random problems: ``python -m tests.plugins.fuzz --cases 20000``.

Ends with exit code 1 and the case to reproduce at the first difference. Needs a C++ compiler, no CUDA, no GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from tests.cases import Case, OptionCase, SeriesCase, random_case
from tests.plugins.emulated import Emulated, Problem, build, difference

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class NearZero(Case):
    """Cosines that round to -0 and +0: they tie, so that the lowest index wins."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As of the base class; a's are (1, 0), b's (-+1e-8, 1)."""
        x, _, size = super().arrays()
        metric = np.zeros((self.batch, self.tokens, 2), x.dtype)
        metric[:, 0::2, 0] = metric[:, 1::2, 1] = 1
        metric[:, 1::2, 0] = 1e-8 * np.where(np.arange(self.tokens // 2) % 2, 1, -1)
        return x, metric, size


class OwnLengths(SeriesCase):
    """Series that end in padding, as a step before leaves them, with some in the middle; some have no token."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As of the base class, with sizes of 0 from a place of each row on up to the protected ones."""
        x, metric, size = super().arrays()
        rng = np.random.default_rng([self.seed, 1])
        setting = self.settings
        place = np.arange(self.tokens) - setting["protect_first"]
        ends = rng.integers(0, self.tokens + 1, (self.batch, 1)) * (rng.random((self.batch, 1)) < 0.8)
        ends *= int(rng.random() < 0.8)
        free = (place >= 0) & (np.arange(self.tokens) < self.tokens - setting["protect_last"])
        size[free & ((place >= ends) | (rng.random(size.shape) < 0.1))] = 0
        return x, metric, size


def draw(seed: int) -> tuple[Case, Problem]:
    """Case and problem of a seed. One in eight rows is long: several warps, blocks and tiles take part."""
    rng = np.random.default_rng(seed)
    if seed % 50 == 0:
        case: Case = random_case(rng, of=NearZero)
        return case, Problem.of(case, seed=seed)
    of = OptionCase if seed % 4 == 1 else Case
    case = random_case(rng, of=of, tokens=600 if rng.random() < 0.125 else 80)
    options = {
        "wide": bool(rng.random() < 0.5),
        "offset": int(rng.choice([0, 0, 0, 4, 8])),
        "seed": int(rng.integers(2**31)),
    }
    return case, Problem.of(case, **options)


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.plugins.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="number of cases (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="first seed; case n uses seed + n (default: 0)")
    parser.add_argument("--program", type=Path, help="a program built already")
    parser.add_argument(
        "--sanitize", action="store_true", help="build with address and undefined-behaviour sanitizers"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        program = options.program
        if program is None:
            program = build(Path(folder, "emulated"), flags=SANITIZERS if options.sanitize else ("-O2",))
        with Emulated(program) as kernels:
            numbers = range(options.seed, options.seed + options.cases)
            for seed in track(numbers, description="emulated", disable=not sys.stderr.isatty()):
                case, problem = draw(seed)
                try:
                    found = difference(case, kernels.run(problem))
                except RuntimeError as error:
                    found = str(error)
                if found not in (None, "flip"):
                    print(f"seed {seed}: {case}\n{found[:2000]}")
                    return 1
                counts[found or "equal"] += 1
    print(
        f"{options.cases} cases: {counts['equal']} equal, {counts['flip']} decision flips below float noise"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
