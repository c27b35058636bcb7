"""Writes ``plugins/local_merge/PERFORMANCE.md``: what the kernels cost, computed from sources and from ptxas.

Nothing is measured and no GPU is needed: ``python plugins/tools/performance.py PTXAS_LOG``, where the log is the output
of a build with ``-Xptxas -v`` (``ptxas.txt`` of the tests' CMake build).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "local_merge" / "PERFORMANCE.md"

#: Memory bandwidth in bytes a second and float32 operations a second, from NVIDIA's data sheets.
GPUS = {
    "A100 80 GB SXM": (2.039e12, 19.5e12),
    "H100 SXM": (3.35e12, 66.9e12),
    "RTX 4090": (1.008e12, 82.6e12),
}
#: batch, tokens, features, bytes per element.
SIZES = ((8, 512, 512, 2), (32, 512, 512, 2), (8, 4096, 1024, 2), (8, 512, 512, 4))
_KERNEL = re.compile(r"Compiling entry function '_ZN7tsmerge\d+(\w+?)I(\S*?)EEv\S*' for 'sm_(\d+)'")
_TYPES = {"f": "float32", "6__half": "float16", "13__nv_bfloat16": "bfloat16", "i": "int32", "l": "int64"}


def kernels(log: str) -> dict[tuple[str, str], dict[str, tuple[int, int]]]:
    """Registers and spilled bytes by (kernel, template arguments) and architecture."""
    found: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}
    for block in log.split("ptxas info    : Compiling entry function ")[1:]:
        head = _KERNEL.match("Compiling entry function " + block)
        registers = re.search(r"Used (\d+) registers", block)
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", block)
        if not (head and registers and spills):
            continue
        name, arguments, architecture = head.groups()
        parts = re.match(r"(\d+__\w+?|[a-z])(?:Li(\d+)E?)?(?:Lb\dE?)?$", arguments)
        label = arguments
        if parts:
            label = _TYPES.get(parts[1], parts[1]) + (f" x {parts[2]}" if parts[2] else "")
        entry = found.setdefault((name, label), {})
        entry[architecture] = (int(registers[1]), int(spills[1]) + int(spills[2]))
    return found


def bytes_moved(batch: int, tokens: int, features: int, width: int, removed: int) -> dict[str, int]:
    """Bytes between memory and chip per launch, k = 1, x as its own metric, each row read once per launch."""
    pairs, left = tokens // 2, tokens - removed
    x = tokens * features * width
    match = x + 4 * tokens + 8 * pairs
    select = 8 * pairs + 4 * pairs + 4 * pairs + 8 * (left + tokens) + 12 * left
    combine = x + 4 * pairs + 12 * left + 4 * tokens + left * features * width + 4 * left
    return {"match": batch * match, "select": batch * select, "combine": batch * combine}


def chain_bytes(batch: int, tokens: int, features: int, width: int, removed: int) -> int:
    """Bytes of the same merge as the static body of standard layers, elementwise chains fused, one tensor a layer.

    Gathers of a and b (read x, write float32 halves), their product and norms, TopK and two cumulative sums over ranks,
    the scatter of places, gathers of y_kept and x_previous (read and write), and the fused weighted mean.
    """
    pairs, left = tokens // 2, tokens - removed
    row = features * width
    slices = 2 * pairs * (row + row)
    scores = 2 * pairs * row + 4 * pairs
    choose = 6 * 8 * pairs
    places = 5 * 8 * tokens
    gathers = 2 * left * (row + row)
    mean = 3 * left * row
    return batch * (slices + scores + choose + places + gathers + mean)


def page(log: str) -> str:
    """The page as Markdown."""
    lines = [
        "# What the kernels cost",
        "",
        "**Computed, not measured** (measured times are in [docs/gpu.md](../../docs/gpu.md)). Registers and spills are "
        "those that ptxas",
        "of CUDA 13.0 reports; bytes and times follow from sizes and data sheets. Made by "
        "`plugins/tools/performance.py`.",
        "",
        "## Launches",
        "",
        "| launch | grid | block | shared memory | reads | writes |",
        "|---|---|---|---|---|---|",
        "| largest norm, l2 and dot alone | a group of lanes per token | 128 | none | metric, size | 4 bytes a row |",
        "| match, k <= 4 | a group of lanes per a, rows x a's | 128 | none | metric, size | 8 bytes an a |",
        "| match, k > 4 or all | 64 a's, rows x splits | 128 | 14,208 bytes | metric, size | 8 bytes an "
        "a and split |",
        "| select | a row | 64 to 1,024 | 1,296 bytes + 4 an a up to 8,192 | candidates, size | kept, "
        "target, slots |",
        "| combine | a group of lanes per output token | 128 | none | x, size, slots | y, size_out |",
        "",
        "Three launches, four for l2 and dot, two where nothing is removed, none for an empty batch; "
        "DynamicMerge counts the",
        "a's above its threshold in one more (a block a row). x is read twice (by match, if it is its",
        "own metric, and by combine: every token goes to one output), y is written once. Neighbourhoods "
        "2 to 4 read rows",
        "of neighbours again, from the cache. With k > 4 a block compares 64 a's with tiles of 32 b's: "
        "rows of b are read",
        "once per block of a's, from the L2 cache as long as the b's of a row fit there (4 MB at N = "
        "4,096, D = 1,024,",
        "float16); norms are computed on the tiles in shared memory. Its work is 2 x 64 x 32 x D "
        "float32 operations a",
        "tile, without tensor cores: for k = all that, not memory, is the limit.",
        "",
        "## Registers and spills",
        "",
    ]
    table = kernels(log)
    architectures = sorted({a for entry in table.values() for a in entry}, key=int)
    lines += [
        f"| kernel | elements | {' | '.join(f'sm_{a}' for a in architectures)} |",
        "|---|---|" + "---|" * len(architectures),
    ]
    for (name, label), entry in sorted(table.items()):
        cells = [
            f"{entry[a][0]}" + (f" (spills {entry[a][1]})" if entry[a][1] else "") for a in architectures
        ]
        lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
    spilled = sum(value[1] for entry in table.values() for value in entry.values())
    lines += [
        "",
        f"Registers a thread; spilled bytes in all: {spilled}.",
        "",
        "## Roofline, k = 1, a quarter of the tokens removed",
        "",
        "Bytes between memory and chip over bandwidth; launches are not counted (about 2 to 4 "
        "microseconds each, less in",
        "a CUDA graph). *Chain* is the same merge as standard layers (`tsmerge_export/methods/local/static.py`) with",
        "every elementwise chain fused, by the same rule.",
        "",
        "| B, N, D, bytes | plugin, MB | chain, MB | "
        + " | ".join(f"{gpu}: plugin / chain, us" for gpu in GPUS)
        + " |",
        "|---|---|---|" + "---|" * len(GPUS),
    ]
    for batch, tokens, features, width in SIZES:
        moved = sum(bytes_moved(batch, tokens, features, width, tokens // 4).values())
        chain = chain_bytes(batch, tokens, features, width, tokens // 4)
        cells = [
            f"{moved / bandwidth * 1e6:.1f} / {chain / bandwidth * 1e6:.1f}" for bandwidth, _ in GPUS.values()
        ]
        lines.append(
            f"| {batch}, {tokens}, {features}, {width} | {moved / 1e6:.1f} | {chain / 1e6:.1f} | {' | '.join(cells)} |"
        )
    lines += [
        "",
        "## Roofline, k = all",
        "",
        "Float32 operations of all pairs, 2 x (N/2)^2 x D a row, over the peak; the kernel cannot be "
        "faster than this.",
        "",
        "| B, N, D | Gop | " + " | ".join(f"{gpu}, us" for gpu in GPUS) + " |",
        "|---|---|" + "---|" * len(GPUS),
    ]
    for batch, tokens, features, _ in SIZES[:3]:
        work = 2 * batch * (tokens // 2) ** 2 * features
        cells = [f"{work / peak * 1e6:.1f}" for _, peak in GPUS.values()]
        lines.append(f"| {batch}, {tokens}, {features} | {work / 1e9:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page; returns the exit code."""
    if len(sys.argv) != 2:
        print(f"usage: python {sys.argv[0]} PTXAS_LOG", file=sys.stderr)
        return 2
    PAGE.write_text(page(Path(sys.argv[1]).read_text(errors="replace")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
