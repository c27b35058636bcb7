"""What `tsmerge bench` times on one input: a model with its rivals, or a bundle whose model is not named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsmerge_export.bundle import Bundle
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.compile.source import Source
from tsmerge_export.console.progress import Progress
from tsmerge_export.families.base import Arrays, Family
from tsmerge_export.graphs.model import FAMILY, GraphOptions, is_graph_file
from tsmerge_export.graphs.source import GraphSource
from tsmerge_export.inspection import flops
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.tools.bench.candidate import MERGED, UNMERGED, Candidate
from tsmerge_export.verify import ratios

_EAGER = {"eager": "eager sdpa", "compile": "torch.compile"}


@dataclass
class Group:
    """What shares one input.

    Attributes:
        name: of the model, or of the bundle that stands alone. family: name of its family.
        component: the one that is timed.
        inputs: of the component, for series ``[batch, length]``.
        longest: steps that it reads at most; None where any length may run: one that does not is a row that says so.
    """

    name: str
    family: str
    component: str
    inputs: Callable[[npt.NDArray[np.float32]], Arrays]
    longest: int | None = None
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refusal(self, length: int) -> str | None:
        """Why a length is left out; None where it is not."""
        if self.longest is None or length <= self.longest:
            return None
        return f"{self.name} reads at most {self.longest} steps"

    def at(self, batch: int, length: int) -> list[Candidate]:
        """The candidates that run at a size."""
        return [one for one in self.candidates if one.shape is None or one.shape == (batch, length)]

    def add(self, name: str, kind: str, source: str | Path, *, merged: bool = False, **options: Any) -> None:
        """One more candidate; ``options`` are for loading an eager model."""
        self.candidates.append(Candidate(name, kind, self.name, str(source), options, merged=merged))

    def add_merged(
        self, name: str, source: str | Path, merge: MergeConfig, shape: OneShape | None = None
    ) -> None:
        """A file that merges, for one shape or any; where its ratio is chosen at run time, one candidate for each of
        several."""
        if shape is not None:
            own = (shape.batch, shape.length)
            name = f"{name}, {shape} alone"
            self.candidates.append(
                Candidate(name, "onnxruntime", self.name, str(source), {}, merged=merge.active, shape=own)
            )
            return
        if merge.default_ratio is None:
            self.add(name, "onnxruntime", source, merged=merge.active)
            return
        for ratio in sorted({merge.default_ratio, *ratios.others(merge.default_ratio)}):
            shown = f"{name}, ratio {ratio}"
            self.candidates.append(
                Candidate(shown, "onnxruntime", self.name, str(source), {}, merged=True, ratio=str(ratio))
            )


def first_only(family: Family, model: Any) -> str | None:
    """What a user must know about times where a model has more components than the one that is timed."""
    parts = [part.name for part in family.components(model)]
    if len(parts) == 1:
        return None
    return (
        f"{family.name}: times, FLOPs and speed-ups are those of the {parts[0]} alone, where tokens merge; a whole "
        f"forecast also runs {' and '.join(parts[1:])}"
    )


def of_model(
    path: str,
    merge: MergeConfig,
    rivals: Sequence[str],
    folder: Path,
    options: dict[str, Any],
    graph: GraphOptions,
    progress: Progress,
) -> Group:
    """A model as it is, merged, and in the hands of its rivals.

    Args:
        rivals: names of :data:`~tsmerge_export.tools.bench.candidate.RIVALS`. folder: to make, for the files.
        options: for :func:`~tsmerge_export.checkpoint.load_model`. graph: for ``.onnx`` and ``.pt2`` files.

    Raises:
        UsageError, UnsupportedError: as an export of the model.
    """
    source: Source
    if is_graph_file(path):
        source = GraphSource(path, graph, progress=progress)
    else:
        source = CheckpointSource.load(path, progress=progress, **options)
    compilation = Compilation(source, merge, progress=progress)
    component = source.components[0]
    folder.mkdir()
    built = compilation.merged(component, folder)
    group = Group(path, source.family, component.name, source.feed, source.longest)
    plain = source.rival(built, folder)
    group.add(UNMERGED, "onnxruntime", plain)
    for rival in rivals:
        if rival == "openvino":
            group.add("openvino", rival, plain)
        elif rival in _EAGER and isinstance(source, CheckpointSource):
            group.add(_EAGER[rival], rival, path, **options)
    if compilation.merge.active:
        group.add_merged(MERGED, built.merged, compilation.merge)
    note = compilation.settled.note
    if isinstance(source, CheckpointSource):
        first = first_only(source.of_family, source.model)
        group.notes = [*([f"{path}: {note}"] if note else []), *([first] if first else [])]
        return group
    group.notes = [*([note] if note else []), *source.notes, f"{path}: run on generated inputs"]
    left_out = [name for name in rivals if name in _EAGER]
    if left_out:
        group.notes.append(f"{path}: has no eager model; {' and '.join(left_out)} left out")
    return group


def bundle_name(bundle: Bundle, path: str) -> str:
    """A bundle as a row is called, with its precision where that is not float32."""
    low = bundle.contents.precision
    return f"bundle {path}" if low is None else f"bundle {path} ({low.kind})"


def of_bundle(path: str) -> Group:
    """A bundle by itself, its first component: there is nothing to compare it with.

    Raises:
        UsageError: no bundle, or a changed file.
    """
    bundle = Bundle.open(path)
    info, family = bundle.components[0], str(bundle.contents.family)

    def inputs(series: npt.NDArray[np.float32]) -> Arrays:
        """The series themselves where the file reads series and nothing else; otherwise generated."""
        if [(i.dtype, len(i.dims)) for i in info.inputs] == [("float32", 2)] and family != FAMILY:
            return {info.inputs[0].name: series}
        return flops.feeds(flops.load_graph(info.file), *series.shape)

    group = Group(path, family, info.name, inputs)
    group.add_merged(bundle_name(bundle, path), info.file, bundle.merge, bundle.contents.one_shape)
    others = [part.name for part in bundle.components[1:]]
    if others:
        group.notes.append(f"{path}: times are those of {info.name} alone; it also has {', '.join(others)}")
    original = bundle.contents.original
    beside = bundle.contents.source if original is None else original.source
    group.notes.append(
        f"{path}: alone, there is nothing to compare it with; name its model too ({beside}) for speed-ups"
    )
    return group
