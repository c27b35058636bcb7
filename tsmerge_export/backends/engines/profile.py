"""Ranges of input shapes (optimization profiles), written as trtexec writes them: ``context:1x512,mask:1x512``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsmerge_export.backends.target import SHAPE_FLAGS as FLAGS
from tsmerge_export.errors import UsageError

#: Batch and length where no flag says otherwise; the length is cut to what the model reads.
DEFAULT_BATCH = (1, 4, 8)
DEFAULT_LENGTH = (64, 512, 2048)


@dataclass(frozen=True)
class Profile:
    """Smallest, most usual and largest shape per input."""

    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]

    def flag(self, which: int) -> str:
        """One of the three as trtexec takes it: ``name:1x64,other:1x64``."""
        return ",".join(f"{name}:{'x'.join(map(str, shapes[which]))}" for name, shapes in self.shapes.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: per input ``min``, ``opt`` and ``max``."""
        return {
            name: dict(zip(("min", "opt", "max"), map(list, shapes), strict=True))
            for name, shapes in self.shapes.items()
        }


def parse_shapes(text: str, flag: str = FLAGS[0]) -> dict[str, tuple[int, ...]]:
    """Read ``name:1x64,other:1x64``.

    Raises:
        UsageError: not of that form; it names the flag.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        name, _, dims = part.strip().rpartition(":")
        values = dims.split("x")
        if not name or not all(value.isdecimal() and int(value) > 0 for value in values):
            raise UsageError(f"{flag} {text}: must be name:1x512 for every input, commas between")
        if name in shapes:
            raise UsageError(f"{flag} {text}: {name} is given twice")
        shapes[name] = tuple(map(int, values))
    return shapes


def make_profile(
    inputs: Sequence[Any],
    given: Sequence[Mapping[str, tuple[int, ...]] | None],
    *,
    longest: int,
) -> Profile:
    """The profile of a component.

    Args:
        inputs: with ``name`` and ``dims`` each, as of :class:`~tsmerge_export.families.base.TensorSpec`.
        given: smallest, usual and largest shapes by input name, each None where the user gave none.
        longest: steps that the model reads; default lengths are cut to it.

    Raises:
        UsageError: an unknown input, a wrong rank or fixed dim, sizes that contradict each other or their order.
    """
    sizes = [_sizes(inputs, shapes, flag) for shapes, flag in zip(given, FLAGS, strict=True)]
    names = [dim for spec in inputs for dim in spec.dims if isinstance(dim, str)]
    for name in dict.fromkeys(names):
        usual = DEFAULT_BATCH if name == "batch" else [min(length, longest) for length in DEFAULT_LENGTH]
        low, usual_size, high = (found.get(name) for found in sizes)
        low = low or min(usual[0], *(size for size in (usual_size, high) if size is not None), usual[0])
        high = high or max(usual[2], low, usual_size or 0)
        usual_size = usual_size or min(max(usual[1], low), high)
        if not low <= usual_size <= high:
            raise UsageError(
                f"{', '.join(FLAGS)}: sizes of {name} must not fall, they are {low}, {usual_size}, {high}"
            )
        for found, size in zip(sizes, (low, usual_size, high), strict=True):
            found[name] = size
    shapes = {
        spec.name: tuple(
            tuple(found[dim] if isinstance(dim, str) else dim for dim in spec.dims) for found in sizes
        )
        for spec in inputs
    }
    return Profile(shapes)  # type: ignore[arg-type]


def _sizes(inputs: Sequence[Any], shapes: Mapping[str, tuple[int, ...]] | None, flag: str) -> dict[str, int]:
    found: dict[str, int] = {}
    specs = {spec.name: spec for spec in inputs}
    for name, shape in (shapes or {}).items():
        if name not in specs:
            raise UsageError(f"{flag}: {name} is not an input; the inputs are {', '.join(specs)}")
        dims = specs[name].dims
        if len(shape) != len(dims):
            raise UsageError(
                f"{flag}: {name} has {len(dims)} dims ({', '.join(map(str, dims))}), not {len(shape)}"
            )
        for dim, size in zip(dims, shape, strict=True):
            if isinstance(dim, int) and dim != size:
                raise UsageError(f"{flag}: a dim of {name} is {dim}, not {size}")
            if isinstance(dim, str) and found.setdefault(dim, size) != size:
                raise UsageError(f"{flag}: {dim} is {found[dim]} in one input and {size} in {name}")
    return found
