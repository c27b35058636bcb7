"""What `tsmerge bench` times without an eager model: a graph from a file, and a bundle whose model is not named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tsmerge_export.bundle import Bundle
from tsmerge_export.console.progress import Progress
from tsmerge_export.families.base import Arrays
from tsmerge_export.graphs.export import built_graph
from tsmerge_export.graphs.feeds import make
from tsmerge_export.graphs.model import FAMILY, GraphModel, GraphOptions
from tsmerge_export.onnx_model import flops
from tsmerge_export.onnx_model import weights as onnx_weights
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.bench.candidate import MERGED, UNMERGED, Candidate

_NO_EAGER = ("eager", "compile")


@dataclass
class GraphSubject:
    """A model from an ``.onnx`` or ``.pt2`` file. Every dim of its inputs but the batch has the length."""

    name: str
    model: GraphModel
    component: str = "model"
    family: str = FAMILY
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refusal(self, length: int) -> str | None:
        """Any length may run; one that does not is a row that says so."""
        return None

    def inputs(self, series: np.ndarray[Any, np.dtype[np.float32]]) -> Arrays:
        """Generated: nobody knows what the inputs mean."""
        batch, length = series.shape
        sizes = {dim: batch if dim == "batch" else length for dim in self.model.sizes[0]}
        return make(self.model.inputs, sizes)


@dataclass
class BundleSubject:
    """A bundle alone: there is nothing to compare it with."""

    name: str
    bundle: Bundle
    family: str
    component: str
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refusal(self, length: int) -> str | None:
        """Any length may run; one that does not is a row that says so."""
        return None

    def inputs(self, series: np.ndarray[Any, np.dtype[np.float32]]) -> Arrays:
        """The series themselves where the file reads series and nothing else; otherwise generated."""
        info = self.bundle.component(self.component)
        if [(i.dtype, len(i.dims)) for i in info.inputs] == [("float32", 2)] and self.family != FAMILY:
            return {info.inputs[0].name: series}
        model = flops.load_graph(info.file)
        return flops.feeds(model, *series.shape)


def graph_subject(
    source: str,
    merge: MergeConfig,
    rivals: list[str],
    folder: Path,
    options: GraphOptions,
    progress: Progress,
) -> GraphSubject:
    """The file as it is, and merged.

    Raises:
        UsageError, UnsupportedError: as the export of such a file.
    """
    folder.mkdir()
    model, settled, built = built_graph(source, merge, options, folder, progress)
    subject = GraphSubject(source, model, built.component.name)
    plain = str(
        folder / "original.onnx"
    )  # fused operators included, which the merged file had to be taken apart from
    onnx_weights.write(model.original, Path(plain))
    subject.candidates.append(Candidate(UNMERGED, "onnxruntime", source, plain, {}))
    if "openvino" in rivals:
        subject.candidates.append(Candidate("openvino", "openvino", source, plain, {}))
    if settled.merge.active:
        subject.candidates.append(
            Candidate(MERGED, "onnxruntime", source, str(built.merged), {}, merged=True)
        )
    left_out = [name for name in rivals if name in _NO_EAGER]
    subject.notes = [
        *([settled.note] if settled.note else []),
        *model.notes,
        f"{source}: run on generated inputs",
    ]
    if left_out:
        subject.notes.append(f"{source}: has no eager model; {' and '.join(left_out)} left out")
    return subject


def bundle_subject(path: str) -> BundleSubject:
    """A bundle by itself: its first component.

    Raises:
        UsageError: no bundle, or a changed file.
    """
    bundle = Bundle.open(path)
    info = bundle.components[0]
    merge = MergeConfig.from_dict(bundle.manifest["merge"])
    subject = BundleSubject(path, bundle, str(bundle.manifest.get("family")), info.name)
    subject.candidates.append(
        Candidate(f"bundle {path}", "onnxruntime", path, str(info.file), {}, merged=merge.active)
    )
    others = [part.name for part in bundle.components[1:]]
    if others:
        subject.notes.append(f"{path}: times are those of {info.name} alone; it also has {', '.join(others)}")
    subject.notes.append(
        f"{path}: alone, there is nothing to compare it with; name its model too "
        f"({bundle.manifest.get('source')}) for speed-ups"
    )
    return subject
