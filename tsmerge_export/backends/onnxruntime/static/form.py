"""The form of a portable file for one batch and one length."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from tsmerge_export.backends.onnxruntime.static.check import faults
from tsmerge_export.backends.onnxruntime.static.fold import Shape, fixed
from tsmerge_export.backends.static_functions import Wanted, static_functions
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.onnx_model.weights import is_large
from tsmerge_export.ops.schema import DOMAIN, attributes_of

_WANTED = Wanted("a file of one shape has constant lengths", "of constant lengths", "leave out --static")


def static_form(portable: onnx.ModelProto, shapes: Mapping[str, Shape], name: str) -> onnx.ModelProto:
    """The same computation for inputs of these shapes alone; every length in it is a constant.

    Merge nodes stay, so that native operators take them, with functions whose lengths are constant.

    Args:
        portable: not inlined; it is not changed. shapes: of every input. name: of the component, for a refusal.

    Raises:
        UnsupportedError: a length follows from the data, or the weights are more than a message holds.
    """
    if is_large(portable):
        raise UnsupportedError(f"{name}: weights this large have no form of one shape; leave out --static")
    out = static_functions(portable, merge=True, wanted=_WANTED)
    for node in out.graph.node:
        if node.domain == DOMAIN and node.op_type == "GatherPairs" and not attributes_of(node).get("always"):
            # As its static body does; a native operator knows it from the attribute alone.
            node.attribute.append(onnx.helper.make_attribute("always", 1))
    out = fixed(out, shapes)
    found = faults(out)
    if found:
        raise UnsupportedError(
            f"{name}: {found[0]}, but {_WANTED.plans}; {_WANTED.otherwise}"
            + (f" ({len(found)} such nodes)" if len(found) > 1 else "")
        )
    return out
