"""Calls of functions are counted on the bytes of a file: against onnx's own inliner, and where nothing could inline."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from onnx import inliner

from tests.hostile.attacks import attacks
from tests.hostile.attacks.graphs import chain, model, op
from tsmerge_export.errors import TsmergeError, UnsupportedError, UsageError
from tsmerge_export.untrusted import onnx_scan
from tsmerge_export.untrusted.onnx_scan import check_calls, check_file, scan, scan_bytes


def nodes_of(graph: onnx.GraphProto) -> int:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return len(graph.node) + sum(map(nodes_of, inner))


@pytest.mark.parametrize(("length", "calls"), [(1, 1), (4, 3), (50, 1), (6, 2)])
def test_counts_what_the_inliner_writes(length: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call counts as well; the inliner leaves none."""
    made = model([op(f"f{length - 1}", ["a"], "y", "f")], functions=chain(length, calls), domains=["f"])
    inlined = nodes_of(inliner.inline_local_functions(made).graph)
    calls_made = sum(calls**n for n in range(length))
    found = scan_bytes(made.SerializeToString(), "m.onnx")
    monkeypatch.setattr(onnx_scan, "MAX_NODES", inlined + calls_made)
    check_calls(found, "m.onnx")
    monkeypatch.setattr(onnx_scan, "MAX_NODES", inlined + calls_made - 1)
    with pytest.raises(UnsupportedError, match="once its functions are written out"):
        check_calls(found, "m.onnx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("functions-10-by-10", "more than 50000 operators"),
        ("functions-2-to-the-90", "more than 50000 operators"),
        ("functions-chain-5000", "more than 100 levels"),
        ("functions-recursive", "function f::r calls itself"),
        ("functions-mutual", "calls itself"),
        ("functions-unused-recursion", None),
        ("functions-recursive-in-a-branch", "calls itself"),
        ("functions-duplicate", "function f::d is in the file twice"),
        ("functions-shadowing", "Relu stands for an operator of the standard"),
        ("functions-shadowing-alias", "Relu stands for an operator of the standard"),
        ("functions-not-imported", "of a domain that it does not import"),
        ("functions-chain-50", None),
        ("functions-overloaded", None),
        ("if-nested-14", None),
        ("if-nested-30", "more than 16 branches"),
        ("file-empty", "truncated"),
        ("file-zeros", "truncated"),
        ("file-pipe", "is no file"),
        ("file-folder", "is no file"),
        ("file-link-to-itself", "no such file|cannot be read"),
        ("external-'../x'-4", "leave the folder"),
        ("external-'loop'-4", "leave the folder"),
        ("external-'/etc/hostnam'-13", "leave the folder"),
    ],
)
def test_files(name: str, message: str | None, tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    attacks()[name](file)
    if message is None:
        check_file(file)
        return
    with pytest.raises(TsmergeError, match=message) as caught:
        check_file(file)
    assert "\n" not in str(caught.value)


def test_cut_anywhere(tmp_path: Path) -> None:
    """A message that ends too early is no message, or a shorter one; never another error."""
    whole = model([op("Relu", ["a"])]).SerializeToString()
    file = tmp_path / "m.onnx"
    for end in range(0, len(whole), 7):
        file.write_bytes(whole[:end])
        with suppress(UsageError):
            scan(file)
