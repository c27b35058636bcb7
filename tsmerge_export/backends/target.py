"""For which back end a bundle is made, and how: what the flags of a command line say about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tsmerge_export import backends
from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.one_shape import FLAG, OneShape
from tsmerge_export.settings.precision import FLOAT32, Precision

if TYPE_CHECKING:
    from tsmerge_export.backends.base import Backend
    from tsmerge_export.backends.onnxruntime.place import Place

DTYPES = ("fp32", "fp16", "bf16")
#: Flags of ``shapes``.
SHAPE_FLAGS = ("--min-shapes", "--opt-shapes", "--max-shapes")

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Target:
    """For which runtime a bundle is made.

    Attributes:
        dtype: of matrix products: ``fp32``, ``fp16`` or ``bf16``; everything else is float32.
        shapes: smallest, usual and largest input shapes, each None for the defaults.
        capabilities: for TensorRT-RTX, compute capabilities; empty for the defaults.
        plugin: the plugin library for TensorRT.
        static: the one batch and length that the bundle's files are made for; None is any.
    """

    runtime: str = backends.DEFAULT
    dtype: str = DTYPES[0]
    shapes: tuple[Shapes | None, Shapes | None, Shapes | None] = field(default=(None, None, None))
    capabilities: tuple[str, ...] = ()
    plugin: Path | None = None
    static: OneShape | None = None

    @property
    def backend(self) -> Backend:
        """The back end. Raises UsageError for an unknown one."""
        return backends.get(self.runtime)

    @property
    def inlined(self) -> bool:
        """Whether the bundle's files must have their functions written in place."""
        return self.backend.inlined

    @property
    def needs_more(self) -> bool:
        """Whether the bundle holds more than the portable file, or another form of it."""
        return self.backend.beside or self.static is not None

    def flags(self) -> list[str]:
        """The flags of the command line that ask for it; none for the default."""
        if self.runtime == backends.DEFAULT:
            return [] if self.static is None else [FLAG, str(self.static)]
        out = ["--runtime", self.runtime, "--dtype", self.dtype]
        for flag, shapes in zip(SHAPE_FLAGS, self.shapes, strict=True):
            if shapes is not None:
                out += [flag, ",".join(f"{name}:{'x'.join(map(str, dims))}" for name, dims in shapes.items())]
        if self.capabilities:
            out += ["--compute-capability", ",".join(self.capabilities)]
        return out if self.plugin is None else [*out, "--plugin", str(self.plugin)]

    def proved_at(self, place: Place, *, inline: bool) -> Place:
        """Where ONNX Runtime proves it: without native operators where files hold other bodies of them.

        Raises:
            UsageError: a library of native operators is named there.
        """
        if not inline and not self.backend.beside:
            return place
        return place.without_library("--inline" if inline else f"--runtime {self.runtime}")

    def check(
        self,
        merge: MergeConfig,
        *,
        inline: bool,
        place: Place | None = None,
        precision: Precision = FLOAT32,
    ) -> None:
        """Fail on what cannot work, before any work.

        Args:
            place: where ONNX Runtime proves it. precision: of the bundle's files.

        Raises:
            UsageError: unknown names, or flags (or a library of native operators) without effect.
            UnsupportedError: a method or a precision that the runtime cannot run.
            MissingDependencyError: what the runtime needs is not installed.
        """
        backend = self.backend
        if self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: choose one of {', '.join(DTYPES)}")
        for option, flag, given in (
            ("dtype", "--dtype", self.dtype != DTYPES[0]),
            ("shapes", ", ".join(SHAPE_FLAGS), any(self.shapes)),
            ("capabilities", "--compute-capability", bool(self.capabilities)),
            ("plugin", "--plugin", self.plugin is not None),
            ("inline", "--inline", inline),
        ):
            if given and option in backend.without:
                raise UsageError(
                    f"{flag} has no effect with --runtime {self.runtime}{backend.without[option]}"
                )
        if self.static is not None:
            self._check_static(inline, precision)
        if place is not None:
            self.proved_at(place, inline=inline)
        if merge.at_run_time and not backend.run_time:
            raise UnsupportedError(
                f"--ratio runtime: {self.runtime} {backend.why_fixed}; give a ratio such as 1/4, or use "
                f"--runtime {backends.DEFAULT}"
            )
        if precision.low and not backend.low_precision:
            half = precision.half
            raise UnsupportedError(
                f"--precision {precision.kind}: {'files in half' if half else 'quantised files'} are for --runtime "
                f"{backends.DEFAULT}, not for {self.runtime}; "
                + (
                    f"use --dtype {precision.kind}"
                    if half and "dtype" not in backend.without
                    else "leave one of the two out"
                )
            )
        if precision.half and inline:
            raise UsageError(
                f"--inline: merge decisions of a file in {precision.kind} are proved on its merge nodes; leave it out"
            )
        backend.check(self, merge)

    def _check_static(self, inline: bool, precision: Precision) -> None:
        """Raises UsageError, UnsupportedError: what has no form of one shape."""
        if not self.backend.one_shape:
            raise UsageError(
                f"{FLAG} {self.static} is for --runtime {backends.DEFAULT}, not for {self.runtime}; leave it out"
            )
        if inline:
            raise UsageError(
                "--inline: files of one shape keep their merge nodes, for native operators; leave it out"
            )
        if precision.low:
            raise UnsupportedError(
                f"{FLAG} {self.static}: files below float32 have no form of one shape yet; leave out --precision"
            )
