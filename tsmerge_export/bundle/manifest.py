"""The manifest, typed: what a bundle is, what was merged in it, what was proved of it, and its files.

The format's number is 1 since the first bundle. What came to it since then (pipeline settings, operators and attributes
of merges, notes, targets) is not in older bundles: such fields have a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from tsmerge_export.bundle.precision import PrecisionEntry
from tsmerge_export.bundle.target import TargetEntry
from tsmerge_export.bundle.verdicts import Verdicts
from tsmerge_export.console.one_line import short
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.settings.trained import Trained, Written
from tsmerge_export.typed import SPARSE, plain, read, written

#: Metadata of a field that ``report.json`` leaves to the manifest.
MANIFEST_ONLY: Mapping[str, bool] = MappingProxyType({"manifest_only": True})

FORMAT = "tsmerge-bundle"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle, in bytes and by content."""

    size: int
    sha256: str


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: numpy dtype name, and per dim a number or the name of a dynamic dim."""

    name: str
    dtype: str
    dims: tuple[str | int, ...]


@dataclass(frozen=True)
class MergeEntry:
    """A merge that was inserted. ``before`` and ``after`` are the symbols of the token axis."""

    layer: int | None = None
    node: str = ""
    op_type: str = ""
    scope: str | None = None
    before: str | int | None = None
    after: str | int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BarrierEntry:
    """An operator before which tokens are unmerged, and why."""

    node: str = ""
    op_type: str = ""
    scope: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class RatioEntry:
    """Of a component whose ratio is chosen at run time.

    Attributes:
        input: of the graph, for the ratio: a float32 scalar, not among the component's ``inputs``.
        default: what it is where nobody chooses, as ``1/4``.
    """

    input: str
    default: str


@dataclass(frozen=True)
class ComponentEntry:
    """One exported graph. ``file`` is a name in the bundle's folder."""

    name: str
    file: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    merges: tuple[MergeEntry, ...] = ()
    barriers: tuple[BarrierEntry, ...] = ()
    ratio: RatioEntry | None = field(default=None, metadata=SPARSE)


@dataclass(frozen=True)
class GraphEntry:
    """What the file of a graph did not tell about its tokens. ``token_mask``: the input that is one."""

    token_mask: str | None = None
    protect_first: int = 0
    protect_last: int = 0


@dataclass(frozen=True)
class OriginalEntry:
    """The model that the weights were trained from, which merging was compared with, unmerged.

    Attributes:
        source: as it was named. sha256: of its weights, see :func:`tsmerge_export.checkpoint.weights.digest`.
    """

    source: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Described:
    """What is known of a bundle but its files: a manifest and a report say it, in this order.

    Attributes:
        source: of the model, as it was named. merge: settings, as ``MergeConfig.to_dict()`` gives them.
        graph: of a model from a file.
        pipeline: what a forecaster needs besides the components; None in early bundles and in reports.
        trained: the merge settings that the weights were trained for, where the checkpoint names any.
        original: what merging was compared with, where that is not the same weights unmerged.
        providers: of ONNX Runtime, in order of preference, that verdicts and times come from.
        created: date and time, ISO 8601.
        precision: of files whose weights are not float32.
    """

    source: str | None = field(default=None, metadata=SPARSE)
    family: str | None = field(default=None, metadata=SPARSE)
    merge: dict[str, Any] = field(default_factory=lambda: {"method": "none"})
    notes: tuple[str, ...] = ()
    trained: Written | None = field(default=None, metadata=SPARSE)
    original: OriginalEntry | None = field(default=None, metadata=SPARSE)
    graph: GraphEntry | None = field(default=None, metadata=SPARSE)
    opset: int | None = field(default=None, metadata=SPARSE)
    inline: bool = False
    components: tuple[ComponentEntry, ...]
    pipeline: dict[str, Any] | None = field(default=None, metadata={**SPARSE, **MANIFEST_ONLY})
    verdicts: Verdicts = field(default_factory=Verdicts)
    target: TargetEntry | None = field(default=None, metadata=SPARSE)
    precision: PrecisionEntry | None = field(default=None, metadata=SPARSE)
    versions: dict[str, str] = field(default_factory=dict)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    created: str | None = field(default=None, metadata=SPARSE)

    @property
    def setting(self) -> MergeConfig:
        """What was merged. Raises UsageError for settings that this version does not know."""
        return MergeConfig.from_dict(self.merge)

    @property
    def trained_for(self) -> Trained | None:
        """What the weights were trained for. Raises UsageError for settings that this version does not know."""
        return None if self.trained is None else Trained.of(self.trained, MANIFEST, "trained")

    @property
    def one_shape(self) -> OneShape | None:
        """The one shape that its files are for; None where they take any."""
        return None if self.target is None else self.target.static

    @property
    def of_target(self) -> dict[str, Any]:
        """What a back end reads of it, as in the JSON: ``providers``, and ``target`` where there is one."""
        target = {} if self.target is None else {"target": plain(self.target)}
        return {"providers": list(self.providers), **target}

    @property
    def merge_types(self) -> frozenset[str]:
        """Names of the operators that merge, over all components."""
        return frozenset(merge.op_type for part in self.components for merge in part.merges)


@dataclass(frozen=True, kw_only=True)
class Manifest(Described):
    """``manifest.json``: with its files, by name."""

    files: dict[str, FileEntry]


D = TypeVar("D", bound=Described)


def to_dict(described: Described) -> dict[str, Any]:
    """JSON-ready: what is not there (no target, no graph, ..) is left out."""
    content: dict[str, Any] = written(described)
    return content


def manifest_of(content: Mapping[str, Any], file: Path) -> Manifest:
    """The manifest that ``file`` holds.

    Raises:
        UsageError: a field is missing or of another type, or the format has a number that this version does not read.
    """
    number = content.get("format_version")
    reader = _READERS.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
    if reader is None:
        known = " to ".join(map(str, sorted({min(_READERS), max(_READERS)})))
        raise UsageError(
            f"{file.parent}: bundle format {short(number)}, this version reads {known}; "
            "export it again or upgrade tsmerge-export"
        )
    return reader(content, file)


def _read_1(content: Mapping[str, Any], file: Path) -> Manifest:
    return described_of(Manifest, content, file)


#: By the format's number: how it is read.
_READERS: Mapping[int, Callable[[Mapping[str, Any], Path], Manifest]] = {FORMAT_VERSION: _read_1}


def described_of(kind: type[D], content: Mapping[str, Any], file: object) -> D:
    """Read what manifest and report have in common, and what ``kind`` has besides. Raises UsageError."""
    # Null is as good as nothing.
    return read(kind, {name: value for name, value in content.items() if value is not None}, file)
