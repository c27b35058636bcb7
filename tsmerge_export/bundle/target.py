"""What a bundle says about the files that it holds for a runtime beside ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass, field

from tsmerge_export.bundle.verdicts import Parity


@dataclass(frozen=True)
class Range:
    """Smallest, usual and largest shape of an input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of an engine as the compiler plans them."""

    activation_bytes: int | None = None
    weights_bytes: int | None = None
    engine_bytes: int | None = None


@dataclass(frozen=True)
class TargetPart:
    """The files of one component.

    Attributes:
        onnx: the form of the graph. profile: by input. engine: an executable; None where none was built.
        plan: of the ``unmerged`` and the ``merged`` engine. commands: by tool. missing: why there is no engine.
        parity: of the form. engine_parity: of the engine.
    """

    onnx: str
    profile: dict[str, Range] = field(default_factory=dict)
    engine: str | None = None
    engine_sha256: str | None = None
    compute_capabilities: tuple[str, ...] = ()
    plan: dict[str, MemoryPlan] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    parity: Parity | None = None
    engine_parity: Parity | None = None


@dataclass(frozen=True)
class TargetEntry:
    """The files for one runtime, by component. ``on_gpu``: what of it has run on a GPU, in words.
    ``version``: of the runtime that it was proved in."""

    runtime: str
    dtype: str
    components: dict[str, TargetPart]
    on_gpu: str = ""
    script: str | None = None
    version: str | None = None
