"""Every method's reference against its naive oracle, and the invariants of docs/specification.md."""

from __future__ import annotations

import torch
from hypothesis import event, given
from hypothesis import strategies as st

from tests.cases import Case, compare_with_oracle
from tests.problems import each_method
from tests.strategies import cases, properties
from tsmerge_export.merge import unmerge


@each_method
@properties
@given(st.data())
def test_reference_equals_oracle(of: type[Case], data: st.DataObject) -> None:
    case = data.draw(cases(tokens=24, of=of))
    problem = compare_with_oracle(case, case.outcome())
    if problem == "flip":
        event("decision flip below the margin")
        return
    assert problem is None


@each_method
@properties
@given(st.data())
def test_invariants(of: type[Case], data: st.DataObject) -> None:
    case = data.draw(cases(tokens=60, of=of))
    merged = case.reference()
    x, _, size = case.tensors()
    batch, tokens = size.shape
    left = merged.kept.shape[1]
    assert merged.y.shape == (batch, left, x.shape[2])
    assert merged.y.dtype == x.dtype
    assert merged.size.dtype == torch.float32
    assert merged.kept.dtype == merged.target.dtype == torch.int64
    assert torch.equal(merged.size.sum(1), size.sum(1))
    counts = merged.size > 0 if of.pads else torch.ones_like(merged.size, dtype=torch.bool)
    assert all((kept[own].diff() > 0).all() for kept, own in zip(merged.kept, counts, strict=True))
    # Every survivor goes to its own place.
    places = torch.arange(left).expand(batch, left)
    assert torch.equal(merged.target.gather(1, merged.kept)[counts], places[counts])
    assert merged.target.min() >= 0
    assert merged.target.max() < left
    # Protected tokens stay.
    setting = case.settings
    first, last = setting["protect_first"], setting["protect_last"]
    protected = [t for t in range(tokens) if t < first or t >= tokens - last]
    for row in merged.kept.tolist():
        assert set(protected) <= set(row)
    assert left >= min(tokens, setting["min_tokens"])
    # Outputs that stand for no more than they did hold that token, bit for bit.
    alone = merged.size == size.gather(1, merged.kept)
    width = {"float32": torch.int32}.get(case.dtype, torch.int16)
    assert torch.equal(merged.y[alone].view(width), unmerge(x, merged.kept)[alone].view(width))
