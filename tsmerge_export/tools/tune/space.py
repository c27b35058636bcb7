"""What is searched: every method that is registered, with the settings that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.method import MethodSpec
from tsmerge_export.settings.option import Option, Span

#: Where to merge, as a share of the layers. Early merging saves most, late merging costs least.
_WHERE = ("all", "first half", "second half", "not the first")
# Of all methods alike, and what a search begins with.
_GENERAL: dict[str, tuple[Any, ...]] = {
    "positions": ("gather", "compact"),
    "metric": ("x", "key"),
    "prop_attn": (False, True),
    "protect_newest": (0, 4, 16, 32),
}
#: Beside each method's own: a forecast hangs most on the newest tokens, and large amounts are paid for there.
_NEWEST = ((4, {"ratio": "1/4"}), (16, {"ratio": "1/2"}))
_PLAIN = {**{name: choices[0] for name, choices in _GENERAL.items()}, "where": _WHERE[0]}


class Trial(Protocol):
    """What of an optuna trial is used."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of ``choices``."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """A number from ``low`` to ``high``."""


def layers_of(where: str, points: int) -> tuple[int, ...] | None:
    """Layer indices of a name of where to merge; None is all."""
    half = (points + 1) // 2
    chosen = {
        "all": range(points),
        "first half": range(half),
        "second half": range(points - half, points),
        "not the first": range(min(1, points - 1), points),
    }[where]
    return None if len(chosen) == points else tuple(chosen)


def methods() -> tuple[str, ...]:
    """The names of the methods that are searched: all that can be loaded."""
    return tuple(one.name for one in registry.specs())


def suggest(trial: Trial, points: int) -> MergeConfig:
    """A setting for a model with ``points`` merge points; every name means the same in all methods."""
    method = trial.suggest_categorical("method", methods())
    settings = {name: trial.suggest_categorical(name, choices) for name, choices in _GENERAL.items()}
    settings["layers"] = layers_of(trial.suggest_categorical("where", _WHERE), points)
    for option in _searched(registry.spec(method)):
        settings[option.name] = _propose(trial, _name(option, method), option)
    return MergeConfig(method=method, **settings)


def first_guesses() -> list[dict[str, Any]]:
    """Settings to begin with: local merging from a little to much, each other method once, then amounts that spare the
    newest tokens."""
    begun: list[tuple[MethodSpec, dict[str, Any], Mapping[str, Any]]]
    begun = [(one, {}, guess) for one in registry.specs() for guess in one.guesses]
    begun += [
        (registry.spec(registry.DEFAULT), {"protect_newest": newest}, guess) for newest, guess in _NEWEST
    ]
    out = []
    for one, general, guess in begun:
        guessed = {option.name: option.search.guess for option in _searched(one) if option.search}
        own = {_name(option, one.name): {**guessed, **guess}[option.name] for option in _searched(one)}
        out.append({**_PLAIN, **general, "method": one.name, **own})
    return out


def _searched(one: MethodSpec) -> list[Option]:
    return [option for option in one.options if option.search is not None and option.name not in one.fixed]


def _name(option: Option, method: str) -> str:
    """The name of an option in a search: two packages may have different options of one name."""
    return option.name if option in registry.built_in_options() else f"{method}: {option.name}"


def _propose(trial: Trial, name: str, option: Option) -> Any:
    search = option.search
    assert search is not None
    if isinstance(search, Span):
        found = trial.suggest_float(name, search.low, search.high, step=search.step)
        return round(found, search.digits)
    return trial.suggest_categorical(name, search.values)
