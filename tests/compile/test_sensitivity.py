"""What is kept float32: the order, how many, and what cannot be had, with effects that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from tests.precision.networks import INNER, PRODUCTS, WIDTH, network
from tsmerge_export.compile.sensitivity import Part, find_sensitive
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.precision.products import products
from tsmerge_export.precision.quantise import as_products
from tsmerge_export.rewrite.insert import RewriteReport
from tsmerge_export.settings.precision import Precision
from tsmerge_export.verify.built import Built


class Standin:
    """Effects by the weights that are quantised in the files: distances as given, the bound is the sum of squares."""

    data, windows, columns = "known series", 5, 2

    def __init__(self, effects: Mapping[tuple[str, str], float]) -> None:
        self.effects, self.asked = effects, list[set[tuple[str, str]]]()

    def _low(self, built: Sequence[Built]) -> set[tuple[str, str]]:
        """Of what weights there are whole numbers, of four bits where there are two kinds."""
        found = set()
        for one in built:
            nodes = onnx.load(one.merged).graph.node
            for node in nodes:
                bits = next((a.i for a in node.attribute if a.name == "bits"), 4)
                if node.op_type in ("MatMulInteger", "MatMulNBits") and bits == 4:
                    name = node.input[1].removesuffix("_quantized").removesuffix("_Q4")
                    found.add((one.component.name, name))
        self.asked.append(found)
        return found

    def moved(self, low: Sequence[Built]) -> float:
        (only,) = self._low(low)
        return self.effects[only]

    def bound(self, low: Sequence[Built]) -> float:
        return sum(self.effects[one] ** 2 for one in self._low(low))


def parts(tmp_path: Path, names: Sequence[str] = ("encoder", "decoder")) -> list[Part]:
    """Two components whose nodes have the same names."""
    out = []
    for number, name in enumerate(names):
        model, file = network(number), tmp_path / f"{name}.onnx"
        onnx.save(model, file)
        found = as_products(model)
        built = Built(SimpleNamespace(name=name), file, file, None, RewriteReport())  # type: ignore[arg-type]
        out.append(Part(built, found, tuple(products(found))))
    return out


#: ``w`` is of two products, and half as large as ``v``.
EFFECTS = {
    ("encoder", "w"): 1.0,
    ("encoder", "v_Transposed"): 1.2,
    ("decoder", "w"): 0.1,
    ("decoder", "v_Transposed"): 0.5,
}


@pytest.mark.parametrize("kind", ["int8", "int4-weights"])
@pytest.mark.parametrize(
    ("limit", "kept"),
    [
        (3.0, []),
        (1.8, [("encoder", "w")]),
        (0.3, [("encoder", "w"), ("encoder", "v_Transposed")]),
        (0.2, [("encoder", "w"), ("encoder", "v_Transposed"), ("decoder", "v_Transposed")]),
    ],
)
def test_what_hurts_for_its_size_is_kept_first(
    tmp_path: Path, kind: str, limit: float, kept: list[tuple[str, str]]
) -> None:
    calibration, seen = Standin(EFFECTS), list[tuple[int, int]]()
    precision = Precision(kind, ("auto",), limit)
    found, said = find_sensitive(
        parts(tmp_path), precision, calibration, tmp_path, lambda *done: seen.append(done)
    )
    want = [
        {node for node, weight in PRODUCTS.items() if (component, weight) in kept}
        for component in ("encoder", "decoder")
    ]
    assert found == want
    assert (said.data, said.windows, said.columns, said.budget_percent) == ("known series", 5, 2, limit)
    assert said.before_percent == pytest.approx(1 + 1.44 + 0.01 + 0.25)
    left = sum(effect**2 for key, effect in EFFECTS.items() if key not in kept)
    assert said.after_percent == pytest.approx(left)
    assert said.kept_at == ("int8-weights" if kind == "int4-weights" else "fp32")
    assert {(one.component, one.node) for one in said.products if one.kept} == {
        (component, node)
        for component, nodes in zip(("encoder", "decoder"), want, strict=True)
        for node in nodes
    }
    if kept:
        order = list(dict.fromkeys((one.component, one.weights, one.moved) for one in said.products))
        assert order == [
            ("encoder", WIDTH * WIDTH, 1.0), ("encoder", WIDTH * INNER, 1.2), ("decoder", WIDTH * INNER, 0.5),
            ("decoder", WIDTH * WIDTH, 0.1),
        ]  # fmt: skip
        assert [one.module for one in said.products if one.node == "first"] == ["stack.0", "stack.0"]
        # Alone each, and then as few tries as there are halves.
        assert calibration.asked[1:5] == [{one} for one in EFFECTS] and len(calibration.asked) <= 5 + 2
    assert seen == [(1, 1)] if not kept else seen[-1][0] <= seen[-1][1] == 8


def test_a_limit_that_nothing_keeps(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as failed:
        find_sensitive(
            parts(tmp_path), Precision("int8", ("auto",), 0.001), Standin(EFFECTS), tmp_path, lambda *_: None
        )
    assert str(failed.value) == (
        "--keep-precise auto: int8 may cost more than 0.001 % (+2.7 % with all products at it) whatever is "
        "kept at fp32; give a larger --max-increase, more rows in --data, or a higher precision"
    )


def test_one_per_cent_is_allowed_where_nobody_says(tmp_path: Path) -> None:
    _, said = find_sensitive(
        parts(tmp_path), Precision("int8", ("auto",)), Standin(EFFECTS), tmp_path, lambda *_: None
    )
    assert said.budget_percent == 1.0 and said.after_percent == pytest.approx(0.26)
