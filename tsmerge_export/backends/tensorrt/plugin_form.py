"""The form of a file for TensorRT: one plugin node per merge."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, inliner

from tsmerge_export import ops
from tsmerge_export.backends.tensorrt.names import PLUGIN, PLUGIN_DOMAIN, PLUGIN_NAMESPACE, PLUGIN_VERSION
from tsmerge_export.console.missing import how_to_install
from tsmerge_export.errors import MissingDependencyError


def plugin_form(model: onnx.ModelProto) -> onnx.ModelProto:
    """One plugin node per merge, everything else in standard operators, by onnx-graphsurgeon.

    Args:
        model: from :func:`~tsmerge_export.backends.static_functions.static_functions` with ``merge=False``.

    Raises:
        MissingDependencyError: onnx-graphsurgeon is not installed.
    """
    gs = graphsurgeon()
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        if node.domain == ops.DOMAIN and node.op_type == PLUGIN:  # the inliner leaves what has no function
            node.domain, node.overload = PLUGIN_DOMAIN, ""
    kept = [function for function in out.functions if function.name != PLUGIN]
    del out.functions[:]
    out.functions.extend(kept)
    out.opset_import.append(helper.make_opsetid(PLUGIN_DOMAIN, 1))
    graph = gs.import_onnx(inliner.inline_local_functions(out))
    for node in graph.nodes:
        if node.domain == PLUGIN_DOMAIN:
            node.attrs |= {"plugin_version": PLUGIN_VERSION, "plugin_namespace": PLUGIN_NAMESPACE}
    graph.cleanup().toposort()
    exported = gs.export_onnx(graph, do_type_check=False)
    exported.producer_name = model.producer_name
    del exported.opset_import[:]
    exported.opset_import.extend(entry for entry in out.opset_import if entry.domain != ops.DOMAIN)
    return exported


def graphsurgeon() -> Any:
    """The package. Raises MissingDependencyError."""
    try:
        import onnx_graphsurgeon
    except ImportError:
        raise MissingDependencyError(how_to_install("onnx_graphsurgeon")) from None
    return onnx_graphsurgeon
