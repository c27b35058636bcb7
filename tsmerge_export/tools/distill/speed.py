"""What distilled weights bring: their ONNX files, merged against unmerged, timed in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tsmerge_export.bundle.distillation import Timed
from tsmerge_export.checkpoint import LoadedModel
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.precision import quantise_files
from tsmerge_export.console.progress import Progress
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32, Precision
from tsmerge_export.tools.distill.result import Distilled
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.speed import in_turns, speedup_of

BATCH = 8
_RUNS = 20
_SECONDS = 6.0


def speeds(
    distilled: Distilled, settings: Sequence[MergeConfig], *, threads: int | None, progress: Progress
) -> tuple[Timed, ...]:
    """Time the first component at the context of the distillation, :data:`BATCH` series of noise a call.

    The merged files are in the precision that the weights were trained for, the unmerged one is float32.

    Raises:
        UnsupportedError, UsageError, VerdictError: the model cannot be exported.
    """
    loaded = LoadedModel(distilled.model, distilled.family, dict(distilled.config), "the distilled model")
    source = CheckpointSource(loaded)
    compilation = Compilation(source, MergeConfig("none"))
    component, checks = source.components[0], Checks(threads=threads, seed=distilled.recipe.seed)
    length = distilled.recipe.context or source.longest
    rng = np.random.default_rng(distilled.recipe.seed)
    feed = source.feed(rng.standard_normal((BATCH, length)).cumsum(1).astype(np.float32))
    found = []
    with tempfile.TemporaryDirectory(prefix="tsmerge-distill-") as name:
        root = Path(name)
        compilation.plain(component, root)

        def call(merge: MergeConfig, precision: str = FP32) -> Any:
            folder = Path(tempfile.mkdtemp(dir=root))
            built = compilation.merged(component, folder, merge)
            if precision != FP32:
                (built,), _ = quantise_files([built], Precision(precision), Path(tempfile.mkdtemp(dir=root)))
            session = checks.open(built.merged, timed=True)
            return partial(session.run, None, feed)

        unmerged = call(MergeConfig("none"))
        for number, merge in enumerate(settings):
            times = in_turns(unmerged, call(merge, distilled.recipe.precision), runs=_RUNS, seconds=_SECONDS)
            speed = speedup_of(*times)
            found.append(
                Timed(merge.to_dict(), length, BATCH, speed.value, speed.low, speed.high, speed.runs, threads)
            )
            progress.update(number + 1, len(settings))
    return tuple(found)
