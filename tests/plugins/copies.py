"""The copies by index of ``plugins/local_merge`` (Unmerge, GatherPairs, DistancePlane) on random problems.

``python -m tests.plugins.copies --plugin FILE --cases 2000`` holds them against numpy's indexing; it ends with exit
code 1 and the case to reproduce at the first difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, parser

from tests.ops.harness import add_functions, session
from tsmerge_export import ops

#: By the bytes of an element, and bfloat16, which numpy does not have: it goes in and out as float32.
TYPES = ("float", "float16", "bfloat16", "double", "int64", "int32", "uint8", "bool")
_RANKS = (2, 3, 4)


@dataclass(frozen=True)
class Copy:
    """One problem: the node, inputs by name, and what must come out."""

    op_type: str
    dtype: str
    always: int
    rank: int
    feed: dict[str, np.ndarray]
    wanted: np.ndarray

    def __str__(self) -> str:
        shapes = {name: value.shape for name, value in self.feed.items()}
        return f"{self.op_type} of {self.dtype}, always = {self.always}, {shapes}"


@lru_cache(maxsize=256)
def _session(
    op_type: str, dtype: str, always: int, rank: int, plugin: Path | None, providers: tuple[str, ...]
) -> ort.InferenceSession:
    outer = "float" if dtype == "bfloat16" else dtype
    element = getattr(TensorProto, {"float": "FLOAT"}.get(dtype, dtype.upper()))
    rest = "".join(f", R{axis}" for axis in range(rank - 2))
    inputs, outputs, call = {
        "Unmerge": (f"{outer}[B, M{rest}] a, int64[B, N] target", f"{outer}[B, N{rest}] z", "Unmerge(x, target)"),
        "GatherPairs": (
            f"{outer}[1, H, N, N] value, {outer}[P, H] a, int64[B, M] kept, int64[1] stride, int64[1] offset",
            f"{outer}[R, H, M, M] z",
            f"GatherPairs{f'<always = {always}>' * always}(whole, x, kept, stride, offset)",
        ),
        "DistancePlane": (
            f"{outer}[C, H] a, int64[1] centre, int64[1] tokens", f"{outer}[H, N, N] z",
            "DistancePlane(x, centre, tokens)",
        ),
    }[op_type]  # fmt: skip
    whole = f"whole = Cast<to = {element}>(value)" * (op_type == "GatherPairs")
    model = parser.parse_model(f"""
        <ir_version: {ops.MIN_IR_VERSION}, opset_import: ["" : 18, "{ops.DOMAIN}" : {ops.VERSION}]>
        copy ({inputs}) => ({outputs})
        {{
            x = Cast<to = {element}>(a)
            {whole}
            found = {ops.DOMAIN}.{call}
            z = Cast<to = {getattr(TensorProto, {"float": "FLOAT"}.get(outer, outer.upper()))}>(found)
        }}""")
    add_functions(model)
    if plugin is not None:
        del model.functions[:]  # it runs by the operators, or not at all
    return session(model, plugin=plugin, providers=providers)


def run(copy: Copy, plugin: Path | None, providers: Sequence[str] = ("CPUExecutionProvider",)) -> np.ndarray:
    """What ONNX Runtime makes of it: by the library's operators, or without one by the functions."""
    opened = _session(copy.op_type, copy.dtype, copy.always, copy.rank, plugin, tuple(providers))
    found: np.ndarray = opened.run(None, copy.feed)[0]
    return found


def _values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers that are exact in the type."""
    whole = rng.integers(0, 2, shape) if dtype == "bool" else rng.integers(0, 120, shape)
    numpy = helper.tensor_dtype_to_np_dtype(
        getattr(TensorProto, "FLOAT" if dtype in ("float", "bfloat16") else dtype.upper())
    )
    return whole.astype(numpy)


def unmerge(rng: np.random.Generator, dtype: str) -> Copy:
    """Whole tokens; some indices count from the end."""
    rank = int(rng.choice(_RANKS))
    batch, left, tokens = (int(rng.integers(least, most)) for least, most in ((0, 4), (1, 20), (0, 40)))
    wide = int(rng.choice([1, 3, 4, 16, 50]))
    rest = {2: (), 3: (wide,), 4: (2, wide)}[rank]
    y, target = _values(rng, (batch, left, *rest), dtype), rng.integers(-left, left, (batch, tokens))
    return Copy("Unmerge", dtype, 0, rank, {"a": y, "target": target}, y[np.arange(batch)[:, None], target])


def gather_pairs(rng: np.random.Generator, dtype: str) -> Copy:
    """From a plane of all pairs, or a table of distances; rows that lost nothing, or repeat tokens."""
    batch, heads, tokens = (int(rng.integers(1, most)) for most in (4, 10, 12))
    tokens = 200 if rng.random() < 0.1 else tokens  # more pairs in a row than a block has threads
    heads = int(rng.choice([heads, 4, 8, 16]))
    left = tokens if rng.random() < 0.25 else int(rng.integers(1, tokens + 1))
    always = int(rng.random() < 0.3)
    centre = tokens + int(rng.integers(0, 5))
    if rng.random() < 0.5:
        plane, stride, offset = _values(rng, (2 * centre, heads), dtype), -1, centre
        index = np.arange(tokens)
        value = plane[centre + index[None] - index[:, None]].transpose(2, 0, 1)[None]
    else:
        value = _values(rng, (1, heads, tokens, tokens), dtype)
        plane, stride, offset = value[0].transpose(1, 2, 0).reshape(-1, heads), tokens, 0
    kept = np.stack([np.sort(rng.choice(tokens, left, replace=bool(always))) for _ in range(batch)])
    wanted = np.stack([value[0][:, row][:, :, row] for row in kept])
    if left == tokens and not always:
        wanted = value
    feed = {"value": np.ascontiguousarray(value), "a": np.ascontiguousarray(plane), "kept": kept}
    feed |= {"stride": np.array([stride]), "offset": np.array([offset])}
    return Copy("GatherPairs", dtype, always, 4, feed, wanted)


def distance_plane(rng: np.random.Generator, dtype: str) -> Copy:
    """All pairs from a table of distances."""
    heads, tokens = int(rng.choice([1, 3, 4, 8, 16])), int(rng.choice([1, 5, 31, 32, 150]))
    centre = 32 * int(np.ceil(tokens / 32)) + 32 * int(rng.integers(0, 2))
    table, index = _values(rng, (2 * centre, heads), dtype), np.arange(tokens)
    wanted = table[centre + index[None] - index[:, None]].transpose(2, 0, 1)
    feed = {"a": table, "centre": np.array([centre]), "tokens": np.array([tokens])}
    return Copy("DistancePlane", dtype, 0, 3, feed, wanted)


DRAWS = {"unmerge": unmerge, "pairs": gather_pairs, "plane": distance_plane}


def draw(seed: int, kind: str) -> Copy:
    """The problem of a seed."""
    rng = np.random.default_rng(seed)
    return DRAWS[kind](rng, TYPES[seed % len(TYPES)])


def check(
    seed: int, kind: str, plugin: Path | None, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> str | None:
    """What differs, in words; None is equality."""
    copy = draw(seed, kind)
    found = run(copy, plugin, providers)
    same = found.shape == copy.wanted.shape and np.array_equal(found, copy.wanted)
    return (
        None if same else f"seed {seed}: {copy}\n{found.shape} {found}, not {copy.wanted.shape} {copy.wanted}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the search; returns the exit code."""
    options = argparse.ArgumentParser(
        prog="python -m tests.plugins.copies", description=__doc__.splitlines()[0]
    )
    options.add_argument("--plugin", type=Path, required=True, help="the library, for the CPU provider")
    options.add_argument("--cases", type=int, default=2000, help="per operator (default: 2000)")
    options.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    given = options.parse_args(arguments)
    for kind in DRAWS:
        for seed in range(given.seed, given.seed + given.cases):
            problem = check(seed, kind, given.plugin)
            if problem is not None:
                print(f"{kind}, {problem}")
                return 1
    print(f"{given.cases} cases per operator equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
