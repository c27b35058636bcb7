"""The table of `tsmerge tune` on both trained models and three data sets: runs the searches or reads their results.

    python benchmarks/tune_table.py --data DIR [--results FOLDER] [--models bolt,t5] [--budget 10min]
                                    [--max-increase 3%] [--metric wql] [--threads 1] [--output FILE.md]

DIR holds ETTh1.csv, ETTh2.csv and exchange_rate.txt.gz. Each search is ``tsmerge tune MODEL --data FILE ... --json``,
run as a process of its own, one after the other; its JSON is kept in FOLDER (default: build/tune). A result that is
there already is read, so that an interrupted run goes on where it stopped; delete it to search again.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from tsmerge_export import demo
from tsmerge_export.cli.readers import percent, seconds
from tsmerge_export.settings.config import MergeConfig

MODELS = {"bolt": demo.CHRONOS_BOLT, "t5": demo.CHRONOS_T5}
FILES = ("ETTh1.csv", "ETTh2.csv", "exchange_rate.txt.gz")


def flags(model: str, file: str, args: argparse.Namespace) -> list[str]:
    """The command as a user types it, model and data by name."""
    return [
        "tune", f"tsmerge_export/demo/{MODELS[model].name}", "--data", file, "--max-increase", args.max_increase,
        "--metric", args.metric, "--budget", args.budget, "--threads", str(args.threads),
    ]  # fmt: skip


def run(model: str, file: str, args: argparse.Namespace, result: Path) -> None:
    """One search; raises CalledProcessError where it fails."""
    place = result.with_suffix("")
    told = flags(model, file, args)
    told[1], told[3] = str(MODELS[model]), str(args.data / file)
    told += ["-o", str(place), "--force", "--json", f"{result}.part"]
    start = "import sys; from tsmerge_export.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", start, *told], check=True, stdout=sys.stderr)
    Path(f"{result}.part").replace(result)


def check(found: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """What a result that is read was made with and the flags say otherwise: the commands in the table must be true."""
    wanted = {
        "metric": args.metric,
        "max_increase_percent": percent(args.max_increase),
        "budget_seconds": seconds(args.budget),
    }
    told = {**found, "budget_seconds": found["run"]["budget_seconds"]}
    other = [name for name, value in wanted.items() if told[name] != value]
    return other + (["threads"] if found["identity"]["threads"] != args.threads else [])


def _words(merge: dict[str, Any]) -> str:
    config = MergeConfig.from_dict(merge)
    if not config.active:
        return "unmerged"
    return config.describe().replace(" min-tokens=4", "").replace(" positions=gather", "")


def _percent(value: float) -> str:
    return f"{value:+.1f} %"


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def row(model: str, file: str, found: dict[str, Any]) -> list[str]:
    """The cells of one search."""
    answer = found["answer"]
    chosen = answer["fastest"] or answer["reference"]
    best, test = answer["best"], chosen["test"]
    pays = answer["pays_from"]
    length = "" if pays is None else "none" if pays["length"] is None else f"{pays['length']}"
    return [
        f"chronos-{model}-nano",
        file.split(".")[0],
        "do not merge" if answer["fastest"] is None else _words(chosen["merge"]),
        _times(test["speedup"]),
        _times(test["speedup_over_eager"]),
        _percent(chosen["increase_percent"]),
        _percent(test["increase_percent"]),
        f"{_words(best['merge'])}: {_percent(best['test']['increase_percent'])} at {_times(best['test']['speedup'])}",
        length,
        str(len(found["tried"])),
    ]


def page(results: dict[tuple[str, str], dict[str, Any]], args: argparse.Namespace) -> str:
    """The table in Markdown, with date, versions and the commands."""
    some = next(iter(results.values()))
    dates = sorted({found["date"] for found in results.values()})
    versions = ", ".join(
        f"{n} {v}" for n, v in some["versions"].items() if n in ("python", "torch", "onnxruntime")
    )
    metric = some["metric"]
    head = [
        "model", "data", "setting", "speed-up", "over eager", f"{metric}, validation", f"{metric}, test",
        "best quality (test, speed-up)", "pays from", "tried",
    ]  # fmt: skip
    lines = [
        f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {platform.machine()}; {versions}.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|---|---|" + "---:|" * 4 + "---|---:|---:|",
        *("| " + " | ".join(row(*place, found)) + " |" for place, found in results.items()),
        "",
        "```",
        *(shlex.join(["tsmerge", *flags(*place, args)]) for place in results),
        "```",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {', '.join(FILES)}")
    parser.add_argument("--results", type=Path, default=Path("build/tune"), help="default: build/tune")
    parser.add_argument("--models", default="bolt,t5", help="bolt, t5 or both")
    parser.add_argument("--budget", default="10min")
    parser.add_argument("--max-increase", default="3%")
    parser.add_argument("--metric", default="wql")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the table here as well")
    args = parser.parse_args()
    models = args.models.split(",")
    missing = [str(args.data / file) for file in FILES if not (args.data / file).is_file()]
    if missing or any(model not in MODELS for model in models):
        wrong = f"{missing[0]}: no such file" if missing else f"--models {args.models}: choose from bolt, t5"
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    args.results.mkdir(parents=True, exist_ok=True)
    results = {}
    for model in models:
        for file in FILES:
            result = args.results / f"{model}-{file.split('.')[0]}.json"
            if not result.is_file():
                try:
                    run(model, file, args, result)
                except subprocess.CalledProcessError as error:
                    print(f"error: {model}, {file}: tune ended with {error.returncode}", file=sys.stderr)
                    return 1
            found = json.loads(result.read_text())
            other = check(found, args)
            if other:
                print(f"error: {result}: made with another {', '.join(other)}; delete it", file=sys.stderr)
                return 2
            results[model, file] = found
    text = page(results, args)
    print(text)
    if args.output is not None:
        args.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
