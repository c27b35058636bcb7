"""The merge nodes of a file against the plan that it should follow: their number, operators and attributes.

Running a file shows what it computes at the sizes that it is run at. An attribute that matters at other sizes alone, or
hardly ever, shows here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from tsmerge_export import backends, ops
from tsmerge_export.merge.plan import MergeStep
from tsmerge_export.ops.schema import Attribute
from tsmerge_export.settings.run_time import INPUT, METADATA


def _of_plugins() -> dict[tuple[str, str], tuple[str, ...]]:
    """Plugin nodes of all back ends, by domain and type: what they have beside the attributes of their operator."""
    nodes = [backend.node for backend in backends.usable()]
    return {(node.domain, node.op_type): node.attributes for node in nodes if node is not None}


def merge_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The merges of a file in graph order: nodes of the domain ``tsmerge``, or plugin nodes."""
    plugins = _of_plugins()
    return [
        node
        for node in model.graph.node
        if (node.domain == ops.DOMAIN and node.op_type in ops.merge_op_types())
        or (node.domain, node.op_type) in plugins
    ]


def faults(file: Path | onnx.ModelProto, plan: Mapping[int, MergeStep]) -> list[str]:
    """What differs between the merge nodes of a file and a plan, a line each.

    Args:
        file: a file that holds merge nodes, not one whose functions are inlined.
        plan: steps by layer, as :func:`~tsmerge_export.merge.plan.make_plan` gives them.
    """
    model = file if isinstance(file, onnx.ModelProto) else onnx.load(file, load_external_data=False)
    nodes, steps = merge_nodes(model), [plan[layer] for layer in sorted(plan)]
    if len(nodes) != len(steps):
        return [f"{len(nodes)} merge nodes in the file, but the settings merge at {len(steps)} places"]
    return [
        *_default_faults(model, steps),
        *(
            f"merge at layer {step.layer} (node {node.name!r}): {fault}"
            for node, step in zip(nodes, steps, strict=True)
            for fault in (*_node_faults(node, step), *_source_faults(model, node, step))
        ),
    ]


def _default_faults(model: onnx.ModelProto, steps: Sequence[MergeStep]) -> list[str]:
    """Where the ratio is chosen at run time: the one that the file itself names for where nobody chooses."""
    noted = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA)
    wanted = {
        f"{step.attributes['ratio_num']}/{step.attributes['ratio_den']}" for step in steps if step.at_run_time
    }
    if not wanted or wanted == {noted}:
        return []
    return [f"the default ratio is {str(noted)[:40]}, the settings say {', '.join(sorted(wanted))}"]


def _source_faults(model: onnx.ModelProto, node: onnx.NodeProto, step: MergeStep) -> list[str]:
    """Whether a node reads its ratio from the graph's input, where that is chosen at run time."""
    if not step.at_run_time:
        return [] if len(node.input) == len(ops.schema(step.op_type).inputs) else ["it has other inputs"]
    given = {value.name for value in model.graph.input}
    made = [
        other
        for other in model.graph.node
        if len(node.input) == len(ops.schema(step.op_type).inputs) + 1 and node.input[-1] in other.output
    ]
    right = [(one.domain, one.op_type, list(one.input)) for one in made] == [
        (ops.DOMAIN, "ExactRatio", [INPUT])
    ]
    return [] if right and INPUT in given else [f"its ratio does not come from the input {INPUT}"]


def _node_faults(node: onnx.NodeProto, step: MergeStep) -> list[str]:
    if node.op_type != step.op_type:
        return [f"operator {node.op_type}, the settings say {step.op_type}"]
    declared = {attribute.name: attribute for attribute in ops.schema(step.op_type).attributes}
    found = {item.name: item for item in node.attribute}
    out = []
    if len(found) != len(node.attribute):
        out.append("an attribute is there twice")
    beside = _of_plugins().get((node.domain, node.op_type), ())
    found = {name: item for name, item in found.items() if name not in beside}
    out += [f"unknown attribute {name}" for name in found if name not in declared]
    for name, attribute in declared.items():
        want, got = step.attributes.get(name), found.get(name)
        if (
            want is None and not attribute.optional
        ):  # pragma: no cover - a method gives all that its operator needs
            out.append(f"the settings have no {name}")
        elif got is None:
            if want or not attribute.optional:
                out.append(f"{name} is missing, the settings say {want}")
        elif not _same(attribute, got, want or 0):
            out.append(f"{name} is {_value(got)}, the settings say {want or 0}")
    return out


def _same(attribute: Attribute, got: onnx.AttributeProto, want: int | float) -> bool:
    if attribute.real and got.type == onnx.AttributeProto.FLOAT:
        return np.float32(got.f) == np.float32(want)
    return got.type == onnx.AttributeProto.INT and got.i == want


def _value(item: onnx.AttributeProto) -> int | float | str:
    if item.type == onnx.AttributeProto.INT:
        return item.i
    return item.f if item.type == onnx.AttributeProto.FLOAT else "no number"
