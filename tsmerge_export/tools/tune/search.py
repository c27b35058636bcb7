"""The search: optuna proposes settings, each is scored on the validation windows and timed against the reference."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.errors import MissingDependencyError, UnsupportedError, UsageError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.precision import FP32
from tsmerge_export.settings.registry import built_in
from tsmerge_export.tools.tune.contender import Contender
from tsmerge_export.tools.tune.space import first_guesses, methods, suggest
from tsmerge_export.verify.quality import Errors, columns_that_compare, increase, require_windows
from tsmerge_export.verify.remarks import rival_unfit
from tsmerge_export.verify.speed import Speedup, in_turns, speedup_of

NONE = MergeConfig(method="none")
_STUDY = "tsmerge"
_RUNS = 10
_SECONDS = 4.0
#: So many settings are measured below float32 at most, those that are less than so many times as fast as others among
#: them, until so many are within the budget.
_LOWERED, _NEAR, _ENOUGH = 8, 1.05, 3


@dataclass(frozen=True)
class Tried:
    """One setting that was tried.

    Attributes:
        source: the model. merge: the setting; ``none`` is the model as it is. precision: of the files.
        increase: of the metric over the reference on the validation windows, per cent, median over columns (see
            :mod:`tsmerge_export.verify.change`).
        upper: bound that the increase stays below with 90 % confidence; the budget is held against it.
        speedup: over the reference in the same interleaved run; above 1 is faster. Of what was measured again for the
            verdict it is that figure, see :func:`~tsmerge_export.tools.tune.verdict.settled`.
        error: why it has no figures.
        meant: whether the weights are meant for it, as far as is known: False of those that were trained to merge, and
            run unmerged.
    """

    source: str
    merge: MergeConfig
    increase: float
    upper: float
    speedup: float
    error: str | None = None
    meant: bool = True
    precision: str = FP32

    @property
    def key(self) -> tuple[str, MergeConfig, str]:
        """What was tried."""
        return (self.source, self.merge, self.precision)

    @property
    def changed(self) -> bool:
        """Whether it is more than another model as it is."""
        return self.merge.active or self.precision != FP32

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.source,
            "merge": self.merge.to_dict(),
            "precision": self.precision,
            "increase_percent": self.increase if self.error is None else None,
            "upper_percent": self.upper if self.error is None else None,
            "speedup": self.speedup if self.error is None else None,
            "error": self.error,
            "meant": self.meant,
        }


def pareto(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other beats in both error and speed, fastest first."""
    front: list[Tried] = []
    for one in sorted((t for t in tried if t.error is None), key=lambda t: (-t.speedup, t.upper)):
        if not front or one.upper < front[-1].upper:
            front.append(one)
    return front


def reference_of(errors: Sequence[Errors]) -> int:
    """Index of the unmerged model with the lowest error, against the first one; ``errors [C, W]`` of each model."""
    return min(range(len(errors)), key=lambda i: increase(errors[i], errors[0]).median)


class Search:
    """A search over settings of one or more models, kept in a file so that it can be taken up again.

    Args:
        contenders: the models. metric: ``mse`` or ``wql``.
        study: journal of the search; one that is there is continued.
        identity: what the figures depend on; a journal made with another is refused.
        seed: of the proposals.

    Raises:
        MissingDependencyError: optuna is not installed.
        UsageError: the journal belongs to another search.
    """

    def __init__(
        self,
        contenders: Sequence[Contender],
        metric: str,
        study: Path,
        identity: dict[str, Any],
        seed: int = 0,
    ) -> None:
        try:
            import optuna
        except ImportError:
            raise MissingDependencyError(
                "tsmerge tune needs optuna; pip install 'tsmerge-export[tune]'"
            ) from None
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self.contenders, self.metric = list(contenders), metric
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(study.resolve()))),
                study_name=_STUDY,
                load_if_exists=True,
                directions=["minimize", "maximize"],
                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=12),
            )
        except OSError as error:
            raise UsageError(f"{study}: cannot be written ({error.strerror}); give another -o") from None
        known = self._study.user_attrs.get("identity")
        if known is None:
            self._study.set_user_attr("identity", identity)
            for guess in first_guesses():
                for contender in self.contenders:
                    self._study.enqueue_trial({**guess, "model": contender.name})
        elif known != identity:
            different = sorted(k for k in {*known, *identity} if known.get(k) != identity.get(k))
            raise UsageError(
                f"{study}: belongs to a search with another {', '.join(different)}; remove it or give another -o"
            )
        self._bury()
        unmerged = [contender.errors(NONE, contender.validation)[metric] for contender in self.contenders]
        for contender, errors in zip(self.contenders, unmerged, strict=True):
            require_windows(contender.data, errors, contender.least(metric, contender.validation))
        self.reference = reference_of(unmerged)
        self._base = unmerged[self.reference]
        self._least = self.contenders[self.reference].least(
            metric, self.contenders[self.reference].validation
        )
        self.unmerged = [
            self._figures(contender, NONE, errors)
            for contender, errors in zip(self.contenders, unmerged, strict=True)
        ]
        # No proposal need hit upon them; measured by every run, as the unmerged models are.
        self.trained = [one for contender in self.contenders for one in self._trained(contender)]
        self.low: list[Tried] = []

    def add(self, contender: Contender) -> list[Tried]:
        """A model that came up when the search was over: unmerged, and by what its weights were trained for.

        Returns:
            The latter.
        """
        self.contenders.append(contender)
        self.unmerged.append(self._tried(contender, NONE))
        found = self._trained(contender)
        self.trained += found
        return found

    def lower(self, kinds: Sequence[str], most: float, told: Callable[[int, int], None]) -> None:
        """Measure the settings worth it below float32, too; the search over merging is done.

        Of every precision the fastest come first, until :data:`_ENOUGH` are within the budget.

        Args:
            kinds: precisions. most: the budget, per cent. told: called with (done, of so many at most).
        """
        worth = worth_lowering(self.tried, most)
        by_source = {contender.name: contender for contender in self.contenders}
        for number, kind in enumerate(kinds):
            within = 0
            # What weights were trained for in this very precision need be no good in float32.
            own = [
                one
                for one in self.trained
                if (known := by_source[one.source].trained) is not None and known.precision == kind
            ]
            chosen = list({one.key: one for one in (*own, *worth)}.values())
            for done, one in enumerate(chosen):
                found = self._tried(by_source[one.source], one.merge, kind)
                self.low.append(found)
                told(number * len(chosen) + done + 1, len(kinds) * len(chosen))
                within += one.merge.active and found.error is None and found.upper <= most
                if within == _ENOUGH:
                    break

    def _trained(self, contender: Contender) -> list[Tried]:
        settings = () if contender.trained is None else contender.trained.settings()
        return [self._tried(contender, merge) for merge in settings]

    @property
    def notes(self) -> list[str]:
        """What takes no part in the figures."""
        columns = self.contenders[self.reference].validation.columns
        known = columns_that_compare(self._base, self._least)
        unfit = rival_unfit(self.contenders[self.reference].trained, "named beside it")
        return ([] if unfit is None else [unfit]) + [
            f"column {name!r}: the unmerged error is next to nothing, left out of the increase"
            for name, there in zip(columns, known, strict=True)
            if not there
        ]

    @property
    def tried(self) -> list[Tried]:
        """Everything that has been tried, the unmerged models first, then what their weights were trained for; also in
        runs before this one. What is below float32 comes last."""
        states = self._optuna.trial.TrialState
        found = [*self.unmerged, *self.trained]
        for trial in self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.FAIL)):
            record = trial.user_attrs.get("record")
            if record is not None:
                found.append(
                    Tried(
                        record["source"], MergeConfig.from_dict(record["merge"]), record["increase_percent"] or 0.0,
                        record["upper_percent"] or 0.0, record["speedup"] or 0.0, record["error"],
                    )
                )  # fmt: skip
        return found + self.low

    def _bury(self) -> None:
        """A setting that a run before this one began and never ended took the process down: a row, and not again."""
        for trial in self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,)):
            chosen = {s.name: s for s in self.contenders}.get(trial.params.get("model", ""))
            if chosen is not None:
                try:
                    merge = suggest(self._optuna.trial.FixedTrial(trial.params), chosen.points)
                except ValueError:  # it ended before all of it was proposed
                    continue
                lost = Tried(chosen.name, merge, 0.0, 0.0, 0.0, "ended the process (crashed or killed)")
                self._study._storage.set_trial_user_attr(trial._trial_id, "record", lost.to_dict())
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _figures(
        self, contender: Contender, merge: MergeConfig, errors: Errors, precision: str = FP32
    ) -> Tried:
        worse = increase(errors, self._base, self._least)
        if not math.isfinite(worse.median):
            raise UnsupportedError("its forecasts are not numbers everywhere")
        speedup = 1.0
        reference = self.contenders[self.reference]
        if contender is not reference or merge.active or precision != FP32:
            speedup = time_against(
                reference, contender, merge, runs=_RUNS, seconds=_SECONDS, precision=precision
            ).value
        meant = merge.active or contender.trained is None or not contender.trained.needs_merging
        return Tried(
            contender.name, merge, worse.median, worse.upper, speedup, meant=meant, precision=precision
        )

    def _tried(self, contender: Contender, merge: MergeConfig, precision: str = FP32) -> Tried:
        """The figures of a setting; where it fails, the reason."""
        try:
            errors = contender.errors(merge, contender.validation, precision)[self.metric]
            return self._figures(contender, merge, errors, precision)
        except Exception as error:  # whatever a setting runs into is a row of the table
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            return Tried(contender.name, merge, 0.0, 0.0, 0.0, reason, precision=precision)

    def step(self) -> Tried:
        """Try one setting. What fails is recorded with its reason, and the search goes on."""
        trial = self._study.ask()
        by_source = {contender.name: contender for contender in self.contenders}
        contender = by_source[trial.suggest_categorical("model", tuple(by_source))]
        merge = suggest(trial, contender.points)
        known = next(
            (t for t in self.tried if t.key == (contender.name, merge, FP32) and t.error is None),
            None,
        )
        try:
            found = known or self._tried(contender, merge)
        except BaseException:  # interrupted: the next run begins with it
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(trial.params)
            raise
        trial.set_user_attr("record", found.to_dict())
        if found.error is None:
            self._study.tell(trial, [found.upper, found.speedup])
        else:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return found

    def run(self, seconds: float, told: Callable[[Tried, float], None], trials: int | None = None) -> None:
        """Try settings until the time is over (or ``trials`` are made); ``told`` gets each and the share done."""
        begin = time.monotonic()
        made = 0
        while trials is None or made < trials:
            spent = time.monotonic() - begin
            if spent >= seconds:
                break
            found = self.step()
            made += 1
            told(found, min(1.0, (time.monotonic() - begin) / seconds))


def worth_lowering(tried: Sequence[Tried], most: float) -> list[Tried]:
    """The settings to measure below float32: the unmerged models, then what is within the budget on the front, or as
    good as on it, the fastest first.

    Where a setting is outside of the budget, its quantised files can be within it by chance alone. One that another
    beats by :data:`_NEAR` in float32 is hardly the best in another precision.

    Args:
        tried: in float32. most: the budget, per cent.
    """
    good = list({one.key: one for one in tried if one.error is None}.values())

    def beaten(one: Tried) -> bool:
        return any(other.upper <= one.upper and other.speedup > _NEAR * one.speedup for other in good)

    near = [one for one in good if one.merge.active and one.upper <= most and not beaten(one)]
    near.sort(key=lambda one: -one.speedup)
    return [*(one for one in good if not one.merge.active and one.meant), *near[:_LOWERED]]


def time_against(
    reference: Contender,
    contender: Contender,
    merge: MergeConfig,
    *,
    runs: int,
    seconds: float,
    precision: str = FP32,
) -> Speedup:
    """How many times as fast as the unmerged reference in float32, from one interleaved run."""
    calls = reference.call(NONE), contender.call(merge, precision)
    return speedup_of(*in_turns(*calls, runs=runs, seconds=seconds))


def identity_of(
    sources: Sequence[str],
    data: bytes,
    metric: str,
    batch: int,
    length: int | None,
    windows: int | None,
    *,
    columns: Sequence[str] | None = None,
    threads: int | None = None,
    table: Sequence[str] = (),
    place: Place = HERE,
) -> dict[str, Any]:
    """What the figures of a search depend on, besides the machine.

    Args:
        table: the flags that say how ``data`` are read.
    """
    return {
        **({"table": list(table)} if table else {}),
        **({"place": place.to_dict()} if place != HERE else {}),
        **({"methods": list(methods())} if methods() != built_in() else {}),
        "models": list(sources),
        "data": hashlib.sha256(data).hexdigest(),
        "metric": metric,
        "batch": batch,
        "length": length,
        "windows": windows,
        "columns": None if columns is None else list(columns),
        "threads": threads,
    }
