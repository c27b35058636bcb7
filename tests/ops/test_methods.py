"""Every method's function bodies in ONNX Runtime against its reference."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from tests.cases import Case
from tests.ops.harness import difference, run_case
from tests.problems import each_method
from tests.strategies import cases, properties


@each_method
@properties
@given(st.data())
def test_body_equals_reference(of: type[Case], data: st.DataObject) -> None:
    case = data.draw(cases(tokens=80, of=of))
    problem = difference(case, run_case(case))
    if problem == "flip":
        event("decision flip below the margin")
        return
    assert problem is None
