"""The operators of the domain by name: those that methods bring, and those that belong to all of them.

An operator is a module with ``SCHEMA``, ``variant(attributes)`` (the name of the body that a node needs) and
``body(name, opset)``; where it also has a body whose shapes follow from shapes alone, ``static_body(attributes,
opset)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Protocol, cast

import onnx

from tsmerge_export.errors import UnsupportedError, UsageError
from tsmerge_export.ops.schema import DOMAIN, Schema
from tsmerge_export.settings import registry
from tsmerge_export.settings.method import MethodSpec

_OF_ALL = {
    "Unmerge": "tsmerge_export.ops.unmerge",
    "GatherPairs": "tsmerge_export.ops.gather_pairs",
    "DistancePlane": "tsmerge_export.ops.distance_plane",
    "ExactRatio": "tsmerge_export.ops.exact_ratio",
}


class Operator(Protocol):
    """What such a module has."""

    SCHEMA: Schema

    def variant(self, attributes: Mapping[str, int | float]) -> str:
        """Name of the body that a node with these attributes needs."""

    def body(self, name: str, opset: int) -> onnx.FunctionProto:
        """The body of that name."""


def operator(op_type: str) -> Operator:
    """The module of an operator.

    Raises:
        UnsupportedError: the domain does not have it. UsageError: a plug-in's module is none, or two plug-ins have it.
    """
    if op_type in _OF_ALL:
        return cast(Operator, import_module(_OF_ALL[op_type]))
    for ours in _records(map(registry.spec, registry.built_in())):
        if ours.op_type == op_type:
            return _of(ours)
    plugged = {one.operator: one for one in _records(registry.specs()) if one.op_type == op_type}
    if len(plugged) > 1:
        both = " and ".join(f"--merge {one.name}" for one in plugged.values())
        raise UsageError(f"{op_type} is an operator of {both}, and not the same; uninstall one of them")
    for one in plugged.values():
        return _of(one)
    raise UnsupportedError(f"{DOMAIN}.{op_type} is not an operator; the domain has: {', '.join(SCHEMAS)}")


def schema(op_type: str) -> Schema:
    """The record of an operator. Raises UnsupportedError for a name that the domain does not have."""
    return operator(op_type).SCHEMA


def merge_op_types() -> tuple[str, ...]:
    """Operators that remove tokens: ``(x, metric, size) -> (y, size_out, kept, target)``."""
    return tuple(dict.fromkeys(one.op_type for one in _records(registry.specs())))


def _records(of: Iterable[MethodSpec]) -> Iterator[MethodSpec]:
    """Methods and their variants."""
    for one in of:
        yield from (one, *one.variants.values())


def _of(one: MethodSpec) -> Operator:
    found = registry.load(one, one.operator)
    made = getattr(found, "SCHEMA", None)
    if not (isinstance(made, Schema) and made.op_type == one.op_type and made.merges):
        raise UsageError(f"--merge {one.name}: {one.operator} has no SCHEMA of {one.op_type} that merges")
    return cast(Operator, found)


class _Schemas(Mapping[str, Schema]):
    """The records by operator, those of methods first; read when they are asked for."""

    def __getitem__(self, op_type: str) -> Schema:
        try:
            return schema(op_type)
        except UnsupportedError:
            raise KeyError(op_type) from None

    def __iter__(self) -> Iterator[str]:
        return iter((*merge_op_types(), *_OF_ALL))

    def __len__(self) -> int:
        return len((*merge_op_types(), *_OF_ALL))


SCHEMAS: Mapping[str, Schema] = _Schemas()
