"""What is searched: every method that is registered, with the settings that it takes."""

from __future__ import annotations

from typing import Any, Protocol

from tsmerge_export.settings.config import MergeConfig

_RATIOS = ("1/20", "1/10", "1/6", "1/4", "1/3", "1/2")
_KS = ("1", "2", "4", "8")
_PRUNED = ("0", "1/2", "1")
_ENERGIES = ("elu", "gaussian")
#: Where to merge, as a share of the layers. Early merging saves most, late merging costs least.
_WHERE = ("all", "first half", "second half", "not the first")
METHODS = ("local", "global", "dynamic", "pitome", "ssm")


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


def suggest(trial: Trial, points: int) -> MergeConfig:
    """A setting for a model with ``points`` merge points; every name means the same in all methods."""
    method = trial.suggest_categorical("method", METHODS)
    settings: dict[str, Any] = {
        "positions": trial.suggest_categorical("positions", ("gather", "compact")),
        "metric": trial.suggest_categorical("metric", ("x", "key")),
        "prop_attn": trial.suggest_categorical("prop_attn", (False, True)),
        "layers": layers_of(trial.suggest_categorical("where", _WHERE), points),
    }
    if method in ("local", "dynamic"):
        settings["k"] = trial.suggest_categorical("k", _KS)
    if method == "dynamic":
        settings["threshold"] = round(trial.suggest_float("threshold", 0.3, 0.98, step=0.02), 2)
    else:
        settings["ratio"] = trial.suggest_categorical("ratio", _RATIOS)
        settings["schedule"] = trial.suggest_categorical("schedule", ("constant", "linear"))
    if method in ("local", "global"):
        settings["similarity"] = trial.suggest_categorical("similarity", ("cosine", "l2"))
    if method == "ssm":
        settings["prune_share"] = trial.suggest_categorical("prune_share", _PRUNED)
    if method == "pitome":
        settings["energy"] = trial.suggest_categorical("energy", _ENERGIES)
    return MergeConfig(method=method, **settings)


def first_guesses() -> list[dict[str, Any]]:
    """Settings to begin with: local merging from a little to much, then each method once."""
    plain = {"positions": "gather", "metric": "x", "prop_attn": False, "where": "all"}
    amount = {"ratio": "1/4", "schedule": "constant"}
    local = [
        {**plain, **amount, "method": "local", "similarity": "cosine", "k": "1", "ratio": ratio}
        for ratio in ("1/10", "1/4", "1/2")
    ]
    return [
        *local,
        {**plain, **amount, "method": "global", "similarity": "cosine"},
        {**plain, "method": "dynamic", "k": "1", "threshold": 0.9},
        {**plain, **amount, "method": "pitome", "energy": "elu"},
        {**plain, **amount, "method": "ssm", "prune_share": "1/2"},
    ]
