"""What a bundle says about the files that it holds for a runtime beside ONNX Runtime, or for one shape.

A back end says of it what it has to say; what only back ends of other packages say is kept as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tsmerge_export.bundle.verdicts import Parity
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.typed import REST, SPARSE


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest shape of an input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of an engine as the compiler plans them, see :class:`tsmerge_export.backends.tensorrt_rtx.engine.Engine`.

    ``seconds``: of the build. ``version``: of the compiler.
    """

    activation_bytes: int | None = None
    weights_bytes: int | None = None
    engine_bytes: int | None = None
    seconds: float | None = None
    version: str | None = None


@dataclass(frozen=True, kw_only=True)
class TargetPart:
    """The files of one component.

    Attributes:
        profile: by input. onnx: the form of the graph. parity: of the form.
        commands: by tool. missing: why there is no engine; None where none is built.
        engine: an executable; None where there is none. engine_parity: of the engine.
        plan: of the ``unmerged`` and the ``merged`` engine. own: what else the back end says.
    """

    profile: dict[str, Range] = field(default_factory=dict, metadata=SPARSE)
    onnx: str
    parity: Parity | None = field(default=None, metadata=SPARSE)
    commands: dict[str, str] = field(default_factory=dict, metadata=SPARSE)
    missing: tuple[str, ...] | None = field(default=None, metadata=SPARSE)
    engine: str | None = field(default=None, metadata=SPARSE)
    engine_parity: Parity | None = field(default=None, metadata=SPARSE)
    engine_sha256: str | None = field(default=None, metadata=SPARSE)
    compute_capabilities: tuple[str, ...] = field(default=(), metadata=SPARSE)
    plan: dict[str, MemoryPlan] = field(default_factory=dict, metadata=SPARSE)
    own: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(frozen=True, kw_only=True)
class TargetEntry:
    """The files for one runtime, by component. ``on_gpu``: what of it has run on a GPU, in words.
    ``version``: of the runtime that it was proved in. ``static``: the one shape that the bundle's files are for.
    ``own``: what else the back end says."""

    runtime: str
    dtype: str
    on_gpu: str = field(default="", metadata=SPARSE)
    version: str | None = field(default=None, metadata=SPARSE)
    static: OneShape | None = field(default=None, metadata=SPARSE)
    components: dict[str, TargetPart]
    script: str | None = field(default=None, metadata=SPARSE)
    own: dict[str, Any] = field(default_factory=dict, metadata=REST)
