"""Takes out detours around transposes: batch and heads folded into one axis, the rest transposed, and unfolded again.

torch's exporter writes the transposed keys of scaled_dot_product_attention so. Folding hides the batch axis that
alignment relies on, and a plain Transpose says the same.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tsmerge_export.rewrite.dims import dims


def unfold_transposes(model: ir.Model) -> int:
    """Replace Reshape -> Transpose -> Reshape by a Transpose where that is the same. Edits ``model``.

    Returns:
        How many were replaced.
    """
    count = 0
    for node in list(model.graph):
        found = _detour(node)
        if found is None:
            continue
        source, perm = found
        old = node.outputs[0]
        twin = ir.node(
            "Transpose", [source], {"perm": perm}, name=node.name, metadata_props=dict(node.metadata_props)
        )
        new = twin.outputs[0]
        new.name, new.type, new.shape = old.name, old.type, old.shape
        node.name, old.name = f"{node.name}/folded", f"{old.name}/folded"
        model.graph.insert_before(node, twin)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        count += 1
    if count:
        RemoveUnusedNodesPass()(model)
    return count


def _detour(node: ir.Node) -> tuple[ir.Value, list[int]] | None:
    """What is transposed and how, behind the last node of a detour."""
    transpose = _producer(node, "Reshape", "Transpose")
    fold = None if transpose is None else _producer(transpose, "Transpose", "Reshape")
    source = None if fold is None else fold.inputs[0]
    if transpose is None or fold is None or source is None or "perm" not in transpose.attributes:
        return None
    perm = list(transpose.attributes["perm"].as_ints())
    before, folded, after = dims(source), dims(fold.outputs[0]), dims(node.outputs[0])
    if before is None or folded is None or after is None or perm[0] != 0:
        return None
    lead = len(before) - len(folded) + 1  # axes that became the first one
    if lead < 2 or folded[1:] != before[lead:] or after[:lead] != before[:lead]:
        return None
    whole = [*range(lead), *(lead + axis - 1 for axis in perm[1:])]
    unknown = any(dim is None for dim in before)
    return None if unknown or after != [before[axis] for axis in whole] else (source, whole)


def _producer(node: ir.Node, op_type: str, wanted: str) -> ir.Node | None:
    """What computes a node's first input, where both are the operators named."""
    value = node.inputs[0] if node.op_type == op_type and node.inputs else None
    found = value.producer() if value is not None else None
    return found if found is not None and found.op_type == wanted else None
