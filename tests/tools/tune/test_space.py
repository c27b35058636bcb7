"""What the search may propose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.tune import space


class Random:
    """Proposes anything that is allowed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        assert step is not None
        return low + step * int(self.rng.integers(round((high - low) / step) + 1))


@pytest.mark.parametrize("points", [1, 2, 3, 6])
def test_every_proposal_is_a_valid_setting(points: int) -> None:
    seen = set()
    for seed in range(300):
        config = space.suggest(Random(seed), points)
        assert config.select_layers(points)
        assert MergeConfig.from_dict(config.to_dict()) == config
        seen.add(config.method)
    assert seen == set(registry.names())


@pytest.mark.parametrize(
    ("where", "layers"),
    [("all", None), ("first half", (0, 1, 2)), ("second half", (2, 3, 4)), ("not the first", (1, 2, 3, 4))],
)
def test_layers_by_name(where: str, layers: tuple[int, ...] | None) -> None:
    assert space.layers_of(where, 5) == layers
    assert space.layers_of(where, 1) is None


def test_the_search_begins_with_amounts_that_leave_the_newest_alone() -> None:
    """As proposals of an optimiser: every name is one that it would be asked for, every value a choice."""

    class Given:
        def __init__(self, values: dict[str, Any]) -> None:
            self.values = values

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            assert self.values[name] in choices
            return self.values[name]

        def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
            assert low <= self.values[name] <= high
            return float(self.values[name])

    begun = [space.suggest(Given(values), 3) for values in space.first_guesses()]
    assert {config.method for config in begun} == set(registry.names())
    assert {(str(one.ratio), one.protect_newest) for one in begun if one.method == "local"} == {
        ("1/10", 0), ("1/4", 0), ("1/2", 0), ("1/4", 4), ("1/2", 16)
    }  # fmt: skip
