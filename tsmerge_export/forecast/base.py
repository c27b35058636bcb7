"""What all forecasters have in common: the interface of chronos-forecasting's pipelines, on numpy arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tsmerge_export.backends.components import Session
from tsmerge_export.bundle import Bundle
from tsmerge_export.console.one_line import called
from tsmerge_export.console.progress import Progress
from tsmerge_export.errors import UsageError
from tsmerge_export.forecast import inputs as check

if TYPE_CHECKING:
    import pandas as pd

    from tsmerge_export.forecast.frame import Columns, Panel, Saying

Floats = NDArray[np.float32]
ForecasterT = TypeVar("ForecasterT", bound="Forecaster")

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Forecaster(ABC):
    """A bundle as a forecaster. Needs numpy and onnxruntime, and pandas for data frames.

    The forecast of a series is the same whatever is forecast beside it, up to float noise; only the method ``dynamic``
    looks at the whole batch, unless it merges per series. A merging model therefore runs once for each number of tokens
    that the series have.

    Attributes:
        bundle: what it was made from. session: its components in ONNX Runtime.
        forecast_type: ``samples`` or ``quantiles``, what :meth:`predict` returns.
        masks_padding: whether missing values (NaN) in front of a series leave its forecast as it is, where nothing
            merges; without, only series of one length are run together.
        takes_covariates: whether further columns of a table, and several targets, are used.
        progress: told how far a call is.
    """

    forecast_type: str
    takes_covariates = False
    masks_padding = True

    def __init__(self, bundle: Bundle, session: Session, *, memory: int, progress: Progress) -> None:
        self.bundle, self.session, self.progress = bundle, session, progress
        self._memory = memory
        settings = bundle.contents.pipeline
        if settings is None:
            raise UsageError(
                f"{bundle.path}: its manifest has no pipeline settings; export it again with this version"
            )
        self._settings = settings
        try:
            self._context = int(settings["context_length"])
            self._horizon = int(settings["prediction_length"])
            # Older bundles do not name it: then only series of one length are forecast together.
            self._patch = check.whole("patch_size", settings.get("patch_size", 1), 1, 2**31)
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"{bundle.path}: its pipeline settings are incomplete; export it again"
            ) from None
        shape = bundle.contents.one_shape
        #: Steps that the model takes at once, where its files are for that number alone.
        self._only = None if shape is None else shape.length
        if shape is not None:
            self._context = min(self._context, shape.length)
        merges = any(part.merges for part in bundle.contents.components)
        # Patches that overlap give a series in front of which there is padding more tokens.
        self._padding_counts = (
            merges or not self.masks_padding or settings.get("patch_stride", self._patch) != self._patch
        )

    def __repr__(self) -> str:
        name = type(self).__name__.lstrip("_")
        return called(
            name, self.bundle.path, context_length=self._context, prediction_length=self._horizon,
            forecast_type=self.forecast_type,
        )  # fmt: skip

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the bundle's manifest tells forecasters: what the family's ``pipeline`` said of the model."""
        return self._settings

    @property
    def default_ratio(self) -> Fraction | None:
        """Of a bundle whose ratio is chosen at run time, what it is where nobody chooses; None for all others."""
        return self.session.default_ratio

    def at(self: ForecasterT, ratio: Any) -> ForecasterT:
        """The same forecaster with another default for the ratio; what is open is shared. None: this one.

        Args:
            ratio: the share of the tokens that each merge removes, from 0 (nothing merges) to 1/2: a number, a
                Fraction, or text such as ``"1/4"``.

        Raises:
            UsageError: no such ratio, or the bundle's is not chosen at run time.
        """
        if ratio is None:
            return self
        made = copy(self)
        made.session = self.session.at(ratio)
        return made

    @property
    def model_context_length(self) -> int:
        """Steps that the model reads; longer series lose their beginning."""
        return self._context

    @property
    def model_prediction_length(self) -> int:
        """Steps that the model was made to forecast."""
        return self._horizon

    @abstractmethod
    def predict(self, inputs: Any, prediction_length: int | None = None, *args: Any, **kwargs: Any) -> Floats:
        """Forecast; layout, meaning and further arguments depend on the family."""

    @abstractmethod
    def predict_quantiles(
        self,
        inputs: Any,
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        **predict_kwargs: Any,
    ) -> tuple[Floats, Floats]:
        """Quantiles ``[B, H, len(levels)]`` and point forecasts ``[B, H]``, float32.

        Args:
            inputs: a series, a 2-D array of series, or a list of series of any lengths; NaN is missing.
            prediction_length: steps; the model's own for None.
            quantile_levels: each from 0 to 1.
            predict_kwargs: for :meth:`predict`; ``ratio`` for every family, see :meth:`at`.

        Raises:
            UsageError: inputs or numbers that make no sense.
        """

    def predict_df(
        self,
        df: pd.DataFrame,
        *,
        id_column: str = "item_id",
        timestamp_column: str = "timestamp",
        target: str = "target",
        prediction_length: int | None = None,
        quantile_levels: Sequence[float] = LEVELS,
        batch_size: int = 256,
        validate_inputs: bool = True,
        freq: str | None = None,
        **predict_kwargs: Any,
    ) -> pd.DataFrame:
        """Forecast the series of a long data frame, as chronos-forecasting's ``predict_df`` does.

        Time zones are kept: steps are even in UTC, or from days on by the zone's clock. Text that may be two dates
        (01/02/2024) and two rows of a series at one time are refused.

        Args:
            df: a row per series and time, of pandas, or of another library that narwhals knows; other columns are
                ignored.
            id_column, timestamp_column, target: names of columns.
            prediction_length, quantile_levels, predict_kwargs: see :meth:`predict_quantiles`.
            batch_size: series per call; no forecast depends on it (but for ``dynamic`` without ``per_series``).
            validate_inputs: sort and check first. Without it the rows must be grouped by id, sorted by time and even.
            freq: pandas frequency of the timestamps; gaps become missing values. None finds it from series of at least
                three rows, which must have no gap.

        Returns:
            A frame of pandas, ``prediction_length`` rows per series, in order of first appearance: id, timestamp,
            ``target_name``, ``predictions`` and a column per quantile level.

        Raises:
            UsageError: a column is missing or not numeric, timestamps without a frequency, an empty series.
            MissingDependencyError: pandas is not installed, or narwhals for a frame of another library.
        """
        from tsmerge_export.forecast import frame

        steps = check.prediction_length(
            prediction_length, self._horizon, predict_kwargs.pop("limit_prediction_length", False)
        )
        columns = frame.Columns(id_column, timestamp_column, target)
        panel = self.read_panel(df, columns, steps, freq, validate_inputs)
        return self.predict_panel(panel, steps, quantile_levels, batch_size, **predict_kwargs)

    def read_panel(
        self,
        df: Any,
        columns: Columns,
        steps: int,
        freq: str | None = None,
        validate: bool = True,
        saying: Saying | None = None,
        known: Any = None,
    ) -> Panel:
        """The series of a frame, for :meth:`predict_panel`.

        Args:
            df, steps, freq, saying: see :func:`~tsmerge_export.forecast.frame.read`. validate: its ``check``.
            known: a frame of covariates whose future is known, for a family that takes them.

        Raises:
            UsageError: see :meth:`predict_df`; covariates or several targets for a family that takes none.
        """
        from tsmerge_export.forecast import frame

        if known is not None:
            raise UsageError(f"{self.bundle.path}: {self.bundle.contents.family} takes no covariates")
        return frame.read(df, columns, steps, freq, validate, saying)

    def predict_panel(
        self,
        panel: Panel,
        steps: int,
        quantile_levels: Sequence[float] = LEVELS,
        batch_size: int = 256,
        **predict_kwargs: Any,
    ) -> pd.DataFrame:
        """Forecast series that were read already; see :meth:`predict_df` for the other arguments and the result.

        Args:
            panel: its future has ``steps`` rows for each series.
        """
        from tsmerge_export.forecast import frame

        levels = check.quantile_levels(quantile_levels)
        size = check.whole("batch_size", batch_size, 1, 2**31)
        found = self._forecast_panel(panel, steps, levels, size, **predict_kwargs)
        return frame.result(panel, *found, levels)

    def _forecast_panel(
        self, panel: Panel, steps: int, levels: Sequence[float], batch_size: int, **options: Any
    ) -> tuple[Floats, Floats]:
        """Quantiles ``[rows, H, len(levels)]`` and points ``[rows, H]``; a row for each series and target."""
        from tsmerge_export.forecast import frame

        results = []
        for start in range(0, len(panel.values), batch_size):
            chunk = panel.values[start : start + batch_size]
            with frame.naming(panel.ids[start : start + batch_size]):
                results.append(
                    self.predict_quantiles(
                        chunk,
                        prediction_length=steps,
                        quantile_levels=levels,
                        **self._place(start),
                        **options,
                    )
                )
        quantiles, points = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return quantiles, points

    def _together(self, rows: Sequence[Floats]) -> list[NDArray[np.intp]]:
        """Which series may be padded to one array, so that each one's forecast is that of the series alone.

        All of them, where nothing merges: padding is masked. But how many tokens a merge removes depends on how many
        there are, padding too, so a merging model is given those together that it pads to the same steps by itself.

        Args:
            rows: series ``[L]``.

        Returns:
            Indices of the rows of each group, in order; a group for each kind of length, in order of appearance.
        """
        return alike([self._seen(len(row)) if self._padding_counts else 0 for row in rows])

    def _seen(self, length: int) -> int:
        """Steps that the model sees of a series of that many, those included that it pads itself."""
        return -(-length // self._patch) * self._patch

    def _fitting(self, rows: Sequence[Floats]) -> list[Floats]:
        """The rows as long as the files take them: of one shape, shorter ones are missing (NaN) on their left.

        Args:
            rows: series ``[L]``, cut to the context.

        Raises:
            UsageError: a merging model would see more steps than the series alone has, and so merge otherwise.
        """
        only = self._only
        if only is None:
            return list(rows)
        for index, row in enumerate(rows):
            if self._padding_counts and self._seen(len(row)) != self._seen(only):
                raise UsageError(
                    f"series {index} has {len(row)} steps, and {self.bundle.path} was made for {only} alone: padding "
                    "would merge with it and move its forecast; give longer series, or export without --static"
                )
        missing = np.full(only, np.nan, np.float32)
        return [np.concatenate([missing[len(row) :], row]) for row in rows]

    def _own_steps(self, prediction_length: Any) -> int:
        """Steps to forecast, for a model that does not go on behind its own horizon; UsageError for more."""
        steps = check.prediction_length(prediction_length, self._horizon, limit=False)
        if steps > self._horizon:
            raise UsageError(
                f"prediction_length {steps} is longer than the model's own {self._horizon}, "
                f"and {self.bundle.contents.family} does not go on behind it"
            )
        return steps

    def _own_samples(self, num_samples: Any) -> int:
        """Sample paths to draw, the model's own number for None."""
        value = self._settings["num_samples"] if num_samples is None else num_samples
        return check.whole("num_samples", value, 1, check.MAX_SAMPLES)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Takes a bar away that an exception, such as KeyboardInterrupt, would leave behind."""
        try:
            yield
        finally:
            close = getattr(self.progress, "close", None)
            if close is not None:
                close()

    def _place(self, start: int) -> dict[str, Any]:
        """Arguments of :meth:`predict_quantiles` that tell which series of a longer call these are."""
        return {}


def alike(keys: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """Indices of equal keys, a group for each, in order of appearance."""
    found: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return [np.array(group) for group in found.values()]


def quantile(values: Floats, levels: Sequence[float], axis: int) -> Floats:
    """Linear interpolation between order statistics in float32, as ``torch.quantile``; levels become the last axis."""
    ordered = np.sort(np.moveaxis(values, axis, -1), axis=-1)
    rank = np.asarray(levels, np.float32) * np.float32(ordered.shape[-1] - 1)
    below = np.floor(rank).astype(np.int64)
    above = np.ceil(rank).astype(np.int64)
    low, high = ordered[..., below], ordered[..., above]
    return (low + (high - low) * (rank - below.astype(np.float32))).astype(np.float32)
