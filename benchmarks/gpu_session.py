"""All that is to be proved and measured on a GPU, in one command: for a machine that is there for minutes.

What is carried along is made on any machine:

    python -m tests.gpu.files session/files
    python benchmarks/gpu.py prepare session/bench --models base --sizes base:512:64,base:512:1 --without-weights
    cmake -S plugins/onnxruntime_cuda -B build/ort_cuda -DONNXRUNTIME_ROOT=build/onnxruntime \\
      -DCMAKE_CUDA_ARCHITECTURES=90-real
    cmake --build build/ort_cuda
    nvcc -O3 -std=c++17 -arch=sm_90 -I plugins/common -I plugins/local_merge -x cu plugins/local_merge/local_merge.cu \\
      plugins/local_merge/problems.cpp -o build/on_device

On the card, all of it, or with `--stages kernels,operators,graphs,families,memcheck` and `--stages bench` in two calls:

    python benchmarks/gpu_session.py session --plugin build/ort_cuda/libtsmerge_ort_cuda.so --program build/on_device

Without a card, to try this file and the tests: every stage through the CPU's provider at a few problems, with a library
(`-DTSMERGE_EMULATED=ON`) and a program whose kernels are emulated, and `bench` prepared with `tiny:64:2`:

    python benchmarks/gpu_session.py session --plugin EMULATED --dry-run

Each stage is a process with a limit of its own, and what it says is kept in session/logs; one that fails or runs out of
time does not end the others. The last lines are what became of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What fits into a few minutes of one card; benchmarks/gpu.py takes more.
SIZES = "base:512:64,base:512:1"
DRY_SIZES = "tiny:64:2"


@dataclass(frozen=True)
class Stage:
    """A command, and after how many seconds it is ended."""

    name: str
    seconds: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def stages(options: argparse.Namespace) -> list[Stage]:
    """In the order of what is missed most."""
    folder, plugin, dry = options.folder, str(options.plugin), options.dry_run
    test = {
        "TSMERGE_ORT_CUDA_PLUGIN": plugin,
        "TSMERGE_GPU_FILES": str(folder / "files"),
        "TSMERGE_GPU_PROBLEMS": "4" if dry else "150",
        **({"TSMERGE_GPU_PROVIDER": "CPUExecutionProvider"} if dry else {}),
    }
    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-s", "-p", "no:cacheprovider"]
    fuzz = [sys.executable, "-m", "tests.plugins.fuzz", "--program"]
    found = [
        Stage(
            "operators",
            150,
            [*pytest, "tests/gpu/test_operators.py", "tests/gpu/test_torch.py", "-k", "not family"],
            test,
        ),
        Stage("graphs", 120, [*pytest, "tests/gpu/test_static.py"], test),
        Stage("families", 120, [*pytest, "tests/gpu/test_operators.py", "-k", "family"], test),
    ]
    if options.program is not None:
        program = str(options.program)
        found.insert(0, Stage("kernels", 90, [*fuzz, program, "--cases", "20" if dry else "1000"]))
        if not dry:
            checked = folder / "checked.sh"
            checked.write_text(
                f'#!/bin/sh\nexec compute-sanitizer --tool memcheck --error-exitcode 9 "{program}"\n'
            )
            checked.chmod(0o755)
            found.append(Stage("memcheck", 90, [*fuzz, str(checked), "--cases", "40"]))
    bench = [sys.executable, "benchmarks/gpu.py", "run", str(folder / "bench"), "--plugin", plugin]
    bench += ["--json", str(folder / "logs" / "gpu.json"), "--sizes", DRY_SIZES if dry else options.sizes]
    found.append(Stage("bench", 400, [*bench, *(["--dry-run", "--runs", "1"] if dry else ["--runs", "7"])]))
    wanted = options.stages.split(",") if options.stages else [stage.name for stage in found]
    return [stage for stage in found if stage.name in wanted]


def run(stage: Stage, logs: Path) -> tuple[str, float]:
    """What became of a stage, and its seconds; its words are in ``logs`` and on standard output."""
    start = time.monotonic()
    log = logs / f"{stage.name}.txt"
    environment = {**os.environ, **stage.environment, "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        try:
            code = subprocess.run(
                stage.command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
                timeout=stage.seconds,
            ).returncode  # fmt: skip
            said = "passed" if code == 0 else f"failed with {code}"
        except subprocess.TimeoutExpired:
            said = f"ended after {stage.seconds} s"
    print(f"== {stage.name}\n{log.read_text(errors='replace')[-2500:]}", flush=True)
    return said, time.monotonic() - start


def main() -> int:
    """Run the stages; 1 if one did not pass."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plugin", type=Path, required=True, help="the library of native operators")
    parser.add_argument("--program", type=Path, help="plugins/local_merge/problems.cpp, built by nvcc")
    parser.add_argument("--stages", help="these alone, with commas between: kernels, operators, graphs, ...")
    parser.add_argument("--sizes", default=SIZES, help="of the benchmark")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, to try all this")
    options = parser.parse_args()
    options.folder, options.plugin = options.folder.resolve(), options.plugin.resolve()
    options.program = options.program and options.program.resolve()
    logs = options.folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    found = {stage.name: run(stage, logs) for stage in stages(options)}
    for name, (said, seconds) in found.items():
        print(f"{name}: {said}, {seconds:.0f} s")
    return 0 if all(said == "passed" for said, _ in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
