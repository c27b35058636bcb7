"""The CUDA kernels on the CPU: builds ``plugins/local_merge`` with the emulation and runs merge problems through it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np
from ml_dtypes import finfo

from tests.cases import Case, compare_with_oracle
from tests.methods import oracle

ROOT = Path(__file__).parents[2] / "plugins"
KERNELS = ROOT / "local_merge"
EMULATION = ROOT / "emulation"
COMMON = ROOT / "common"

TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
_NUMPY = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_ATTRIBUTES = ("k", "r", "ratio_num", "ratio_den", "min_tokens", "protect_first", "protect_last")
_OPTIONS = ("similarity", "causal")  # 0 where absent

#: Bits of the significand: values are correct to one rounding to them.
_PRECISION = {"float32": 24, "float16": 11, "bfloat16": 8}


def compiler() -> str | None:
    """The C++ compiler, if there is one."""
    return shutil.which("g++") or shutil.which("c++")


def build(target: Path, *, sources: Path = KERNELS, flags: Sequence[str] = ("-O1",)) -> Path:
    """Compile the kernels of ``sources`` into the program ``target``; raises CalledProcessError."""
    found = compiler()
    assert found is not None
    files = [sources / "local_merge.cu", KERNELS / "problems.cpp", EMULATION / "emulation.cpp"]
    command = [found, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", *flags]
    command += [
        "-I",
        str(EMULATION),
        "-I",
        str(sources),
        "-I",
        str(KERNELS),
        "-I",
        str(COMMON),
        "-x",
        "c++",
        *map(str, files),
    ]
    subprocess.run([*command, "-o", str(target)], check=True, capture_output=True, text=True)
    return target


@dataclass(frozen=True)
class Problem:
    """Arrays and attributes of one merge; ``kind`` of index and addresses are the plugin's own."""

    x: np.ndarray
    metric: np.ndarray
    size: np.ndarray
    attributes: Mapping[str, int | float]
    wide: bool = True  # int64 indices
    offset: int = 0  # bytes by which addresses miss a multiple of 16
    seed: int = 1  # of the order of threads

    @classmethod
    def of(cls, case: Case, **options: int) -> Problem:
        """The problem of a case."""
        return cls(*case.arrays(), case.attributes, **options)  # type: ignore[arg-type]


def _type(array: np.ndarray) -> str:
    return next(name for name, dtype in _NUMPY.items() if dtype == array.dtype)


@dataclass(frozen=True)
class Result:
    """What the kernels made of a problem; y has the type of x."""

    y: np.ndarray
    size: np.ndarray
    kept: np.ndarray
    target: np.ndarray
    launches: int

    @property
    def tuple(self) -> tuple[np.ndarray, ...]:
        """``(y widened to float32, size, kept, target)``."""
        return self.y.astype(np.float32), self.size, self.kept, self.target


class Emulated:
    """A running program of the kernels; a context manager. ``run`` raises RuntimeError when it dies."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self) -> Emulated:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        wanted = int(np.prod(shape)) * dtype.itemsize
        data = stream.read(wanted)
        if len(data) != wanted:
            raise RuntimeError((self._process.stderr.read() or b"it ended").decode()[:4000])  # type: ignore[union-attr]
        return np.frombuffer(data, dtype).reshape(shape)

    def run(self, problem: Problem) -> Result:
        """Run one problem."""
        batch, tokens, features = problem.x.shape
        attributes = [int(problem.attributes[name]) for name in _ATTRIBUTES]
        attributes += [int(problem.attributes.get(name, 0)) for name in _OPTIONS]
        header = [
            batch, tokens, features, problem.metric.shape[2], TYPES[_type(problem.x)], TYPES[_type(problem.metric)],
            int(problem.wide), problem.seed, problem.offset, *attributes, batch + problem.seed % 3,
            tokens + problem.seed % 7,
        ]  # fmt: skip
        stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        try:
            stdin.write(np.array(header, np.int64).tobytes())
            for array in (problem.x, problem.metric, problem.size):
                stdin.write(np.ascontiguousarray(array).tobytes())
            stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(self._process.stderr.read().decode()[:4000]) from None  # type: ignore[union-attr]
        left = tokens - removed(problem.attributes, tokens)
        index = np.dtype(np.int64 if problem.wide else np.int32)
        launches = int(self._read(np.dtype(np.int64), (1,))[0])
        y = self._read(problem.x.dtype, (batch, left, features))
        size = self._read(np.dtype(np.float32), (batch, left))
        kept = self._read(index, (batch, left))
        return Result(y, size, kept, self._read(index, (batch, tokens)), launches)


def removed(attributes: Mapping[str, int | float], tokens: int) -> int:
    """r(N) by the oracle."""
    value = {name: int(attributes[name]) for name in _ATTRIBUTES}
    ratio = Fraction(value["ratio_num"], value["ratio_den"]) if value["ratio_num"] else None
    return oracle.removed_count(
        tokens, value["r"], ratio, value["min_tokens"], value["protect_first"], value["protect_last"]
    )


def difference(case: Case, result: Result) -> str | None:
    """What differs from reference and oracle; ``"flip"`` where a decision hung on less than float noise.

    Indices and sizes are equal to the reference's; tokens that received nothing are the input's bits; merged ones are
    the oracle's double-precision means to one rounding of their type (plus that of the float32 sum).
    """
    merged = case.reference()
    if result.launches > (4 if case.attributes.get("similarity") else 3):
        return f"{result.launches} launches"
    if not (np.array_equal(result.kept, merged.kept) and np.array_equal(result.target, merged.target)):
        if not case.exact and compare_with_oracle(case, result.tuple) in ("flip", None):
            return "flip"
        return (
            f"kept {result.kept.tolist()} target {result.target.tolist()}, reference {merged.kept.tolist()} "
            f"{merged.target.tolist()}"
        )
    if not np.array_equal(result.size, merged.size):
        return f"size {result.size.tolist()}, reference {merged.size.tolist()}"
    x, _, size = case.arrays()
    into = result.target.copy()
    if case.attributes.get(
        "causal"
    ):  # their slots are read from the survivor before the one that they went into
        gone = np.ones(into.shape, bool)
        np.put_along_axis(gone, result.kept.astype(np.int64), False, axis=1)
        into[gone] += 1
    for b in range(case.batch):
        problem = _row_differs(x[b], size[b], result.y[b], result.kept[b], into[b])
        if problem:
            return f"row {b}: {problem}"
    return None


def _row_differs(
    x: np.ndarray, size: np.ndarray, y: np.ndarray, kept: np.ndarray, into: np.ndarray
) -> str | None:
    precision = _PRECISION[_type(x)]
    smallest = float(finfo(x.dtype).smallest_subnormal)
    for place, token in enumerate(kept):
        members = np.flatnonzero(into == place)
        real = members[size[members] > 0]
        if not (size[members[members != token]] > 0).any():
            if y[place].tobytes() != x[token].tobytes():
                return f"token {token} changed: {y[place]} was {x[token]}"
            continue
        values, weights = x[real].astype(np.float64), size[real].astype(np.float64)
        with np.errstate(all="ignore"):
            mean = (values * weights[:, None]).sum(0) / weights.sum()
            bound = (
                2.0**-precision * np.abs(mean)
                + (len(real) + 2) * 2.0**-24 * (np.abs(values) * weights[:, None]).sum(0) / weights.sum()
                + smallest
            )
            error = np.abs(y[place].astype(np.float64) - mean)
        finite = np.isfinite(mean)
        if not np.array_equal(y[place].astype(np.float64)[~finite], mean[~finite], equal_nan=True):
            return f"token {token} is {y[place]}, expected {mean}"
        if not (error[finite] <= bound[finite]).all():
            return f"token {token} is {y[place]}, expected {mean} to one rounding"
    return None
