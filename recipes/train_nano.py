#!/usr/bin/env python3
"""Trains a nano Chronos-Bolt or Chronos-T5 model from scratch on a CPU and scores it against seasonal naive.

    python recipes/train_nano.py --family chronos-bolt -o out/bolt --minutes 60

The folder gets config.json and model.safetensors (as `chronos-forecasting` loads them), training.json (what was
done and the figures), training-state.pt (for --resume) and, without --data, cache/ with downloaded series.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

try:
    import chronos
    import numpy as np
    import rich
    import torch
    import transformers
    from nano.chronos_bolt import ChronosBoltFamily
    from nano.chronos_t5 import ChronosT5Family
    from nano.errors import UserError
    from nano.evaluate import CONTEXT, Score, print_table, score
    from nano.family import Architecture, Family
    from nano.loop import Budget, forecaster, train
    from nano.series import SOURCES, load_panels
    from nano.state import Progress, identity_of, write_json

    from tsmerge_export.tools.distill.synthetic import HORIZON, SEASON, Pool, Sampler
except ModuleNotFoundError as missing:
    print(f"error: {missing.name} is missing; pip install chronos-forecasting rich", file=sys.stderr)
    sys.exit(4)

FAMILIES: dict[str, type[ChronosBoltFamily] | type[ChronosT5Family]] = {
    "chronos-bolt": ChronosBoltFamily,
    "chronos-t5": ChronosT5Family,
}


class Parser(argparse.ArgumentParser):
    """Usage errors in one line, exit 2."""

    def error(self, message: str) -> Any:
        """Called by argparse."""
        raise UserError(f"{message}; see --help")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; sizes default to those of the family."""
    parser = Parser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--family", required=True, choices=sorted(FAMILIES))
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="folder for the model"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with the real series (else downloaded)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="training time, validation not counted (default 60)")
    length.add_argument("--steps", type=int, help="steps in total, those before --resume included")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="train through torch.compile: up to 1.6 times as fast, needs g++",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", action="store_true", help="continue from training-state.pt in the output folder"
    )
    parser.add_argument("--synthetic-only", action="store_true", help="no real series, no evaluation")
    parser.add_argument("--validate-every", type=float, default=4.0, metavar="MINUTES")
    parser.add_argument("--synthetic-series", type=int, default=3000, help="of each kind (default 3000)")
    for flag in ("--d-model", "--d-ff", "--layers", "--decoder-layers", "--heads", "--context", "--tokens"):
        parser.add_argument(flag, type=int, help="size of the model (default: the family's)")
    args = parser.parse_args(argv)
    given = {
        name: getattr(args, name)
        for name in ("minutes", "steps", "threads", "synthetic_series", "validate_every")
    }
    for field in asdict(FAMILIES[args.family].defaults):
        given[field] = getattr(args, field)
    for name, value in given.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"--{name.replace('_', '-')}: {value} is not above 0; give a positive number")
    return args


def architecture(args: argparse.Namespace, family: Family) -> Architecture:
    """The family's sizes with those given on the command line."""
    fields = asdict(family.defaults)
    arch = replace(family.defaults, **{k: getattr(args, k) for k in fields if getattr(args, k) is not None})
    if arch.d_model % arch.heads:
        raise UserError(
            f"--d-model: {arch.d_model} is not a multiple of --heads {arch.heads}; change one of them"
        )
    return arch


def record(
    args: argparse.Namespace, arch: Architecture, standing: Progress, scores: list[Score]
) -> dict[str, Any]:
    """The content of training.json: what was trained on what, and every figure that was measured."""
    return {
        "family": args.family,
        "architecture": asdict(arch),
        "seed": args.seed,
        "steps": standing.step,
        "training_minutes": round(standing.seconds / 60, 1),
        "threads": args.threads,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "chronos-forecasting": chronos.__version__,
            "numpy": np.__version__,
        },
        "data": {
            "synthetic_series": 2 * args.synthetic_series,
            "real_sha256": {} if args.synthetic_only else {source.file: source.sha256 for source in SOURCES},
            "split": "train: first 60 %, selection: 60-80 %, test: last 20 %",
        },
        "selected_step": standing.step if args.synthetic_only else standing.best_step,
        "validation": {"columns": ["step", "seconds", "mse_over_naive"], "rows": standing.validation},
        "training_loss": standing.losses,
        "test": {
            "context": CONTEXT,
            "horizon": HORIZON,
            "season": SEASON,
            "unit": "MSE of the point forecast (chronos-t5: mean of 20 samples; chronos-bolt: median), "
            "columns standardised by the training part",
            "scores": [entry.as_json() for entry in scores],
        },
    }


def run(argv: list[str] | None) -> int:
    """Trains, evaluates and writes the files; returns the exit code."""
    args = parse(argv)
    log = rich.console.Console(stderr=True, soft_wrap=True)
    transformers.utils.logging.disable_progress_bar()  # it would break into ours at every saved model
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    family: Family = FAMILIES[args.family]()
    arch = architecture(args, family)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UserError(
            f"--output: cannot make the folder {args.output} ({exc.strerror}); name another"
        ) from exc
    panels = [] if args.synthetic_only else load_panels(args.data, args.output / "cache")
    sampler = Sampler(
        Pool.build(args.seed, panels, args.synthetic_series), np.random.default_rng(args.seed + 1)
    )
    model = family.build(arch)
    log.print(f"{family.name}: {sum(p.numel() for p in model.parameters()):,} parameters, {arch}")
    minutes = args.minutes if args.minutes is not None or args.steps is not None else 60.0
    budget = Budget(args.steps, None if minutes is None else minutes * 60)
    identity = identity_of(family.name, arch, args.seed, args.synthetic_only, args.synthetic_series)
    standing, interrupted = train(
        family,
        model,
        sampler,
        panels,
        budget,
        args.output,
        identity,
        args.resume,
        args.validate_every * 60,
        args.compile,
        log,
    )
    if interrupted:
        log.print(f"interrupted at step {standing.step}; continue with the same command and --resume")
        return 130

    scores: list[Score] = []
    if panels:
        log.print("scoring on the test split")
        assert isinstance(model, transformers.PreTrainedModel)
        best = type(model).from_pretrained(args.output).eval()
        scores = [score(p, forecaster(family, best), "test", None) for p in panels]
        print_table(scores, rich.console.Console())
    write_json(args.output / "training.json", record(args, arch, standing, scores))
    log.print(f"wrote {args.output}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; a user's mistake is one line on stderr."""
    try:
        return run(argv)
    except UserError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:  # outside of the training loop, which has its own handler
        print(
            "interrupted; what is trained is saved, continue with the same command and --resume",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
