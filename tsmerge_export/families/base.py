"""What a family tells the rest: its components, its example inputs, where its tokens are. Never an algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tsmerge_export.families.objective import Objective
from tsmerge_export.merge.applied import Handle
from tsmerge_export.merge.run import MergeRun

Arrays = dict[str, NDArray[Any]]
#: Runs a family's first component: inputs by name -> outputs by name.
Run = Callable[[Arrays], Arrays]
#: A forecaster around such a run: ``(run, series [B, L], seed) -> [B, Q, H]``, see :meth:`Family.forecast`.
Forecast = Callable[[Run, NDArray[np.float32], int], NDArray[np.float32]]
#: The same where the first series has another number than 0 in the seed's streams: ``(run, series, seed, first)``.
Drawn = Callable[[Run, NDArray[np.float32], int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class Forecasts:
    """Forecasts as a bundle's forecaster gives them.

    Attributes:
        levels: of the quantiles. draw: ``[B, len(levels), H]``.
    """

    levels: tuple[float, ...]
    draw: Drawn


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a component.

    Attributes:
        dtype: numpy name, such as ``float32``.
        dims: a number, or the name of a dynamic dim. An output that uses the name of an input's token dim promises
            one entry per original token and is unmerged; a name of its own (``tokens``) lets it stay merged.
    """

    name: str
    dtype: str
    dims: tuple[str | int, ...]


@dataclass(frozen=True)
class MergePoints:
    """The points of an eager model where tokens can be merged.

    Attributes:
        count: how many, in order of execution.
        protect_first, protect_last: special tokens at either end that take no part.
        reason: for a count of 0, why; it is what the user is told who asks for merging.
    """

    count: int
    protect_first: int = 0
    protect_last: int = 0
    reason: str = ""


#: What runs the portable form of most models.
RUNTIMES = ("ONNX Runtime", "onnxruntime-web", "OpenVINO (`--runtime openvino`)")


@dataclass(frozen=True)
class Card:
    """What ``tsmerge families`` and the table of docs/families.md say of a family, each a short text.

    Attributes:
        components: by name, inputs and outputs: ``(("model", "`context` -> `quantiles`"),)``.
        tokens: what one token stands for.
        merging: which methods work, and where.
        runtimes: that run its files.
        unsupported: what does not work, and why.
    """

    components: tuple[tuple[str, str], ...]
    tokens: str
    merging: str = "all"
    runtimes: tuple[str, ...] = RUNTIMES
    unsupported: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """A size that people use, for benchmarks with random weights.

    Attributes:
        name: of the published model or paper. config: as config.json has it.
    """

    name: str
    config: Mapping[str, Any]


#: Share of the tokens that may be left at least without much harm: that of 1/10 in two layers, or 1/20 in four.
SAFE = Fraction(81, 100)


@dataclass(frozen=True)
class Default:
    """What merging does to a model of the family when nobody says how much: data, of which
    :mod:`tsmerge_export.eager.default` makes a setting.

    Attributes:
        kept: share of the tokens that all merging layers together leave at least.
        merges: whether models merge unless told not to; else they are exported as they are unless told to merge.
        reason: why not, for ``merges=False``; after "the default for NAME, ".
    """

    kept: Fraction = SAFE
    merges: bool = False
    reason: str = "which names no amount that is known to be safe"


# What these rest on: the trained models that ship, rows 64 to 80 % of the sample series, ETTh1, ETTh2 and
# exchange_rate, change of the weighted quantile loss (median over columns) by the ratio in each of four layers.
#: Where a token is a patch of several steps. Chronos-Bolt: 1/20 -0.3 to +1.0 %, 1/10 +0.6 to +1.9 %, 1/4 +6 to +17 %;
#: at 1/10 single columns lose up to 19 %.
PATCHES = Default(SAFE, merges=True)
#: Where a token is a time step. Chronos-T5: 1/20 -2.7 to +3.1 %, 1/10 -3.6 to +8.1 %; neither makes it faster
#: (docs/tune.md).
STEPS = Default(SAFE, reason="whose tokens are single time steps: what is safe to merge makes it no faster")


@dataclass(frozen=True)
class Hints:
    """What a family may tell the graph rewriter: data, no code.

    Attributes:
        apart: name of an extra output with one entry along axis 0 for each token at the end of N that no merge is given
            and that counts in no N, where that number follows from the inputs; a slice of tokens from the end that the
            graph makes by a length of which this number is computed takes none but these.
        token_mask: name of a graph output ``[B, N]`` that is 0 where a token is padding. It may be an extra output
            of the exported module; it is dropped from the result unless it is one of the component's outputs.
        scope: regular expression; where the file has exporter scopes, points whose scope does not match are left.
        token_log_size: name of an output ``[B, N]`` float32 that shall hold, under proportional attention, the
            logarithm of the sizes of the tokens that the outputs stand for; 0 otherwise.
        protect_first, protect_last: see :class:`MergePoints`.
    """

    token_mask: str | None = None
    token_log_size: str | None = None
    apart: str | None = None
    scope: str | None = None
    protect_first: int = 0
    protect_last: int = 0


class Component(ABC):
    """One exported graph of a model. ``model`` is always the family's original module, unpatched.

    Attributes:
        name: such as ``model`` or ``encoder``; the file is ``<name>.onnx``.
        inputs, outputs: in graph order.
        hints: for the rewriter.
        mergeable: whether the rewriter inserts merging here; without it the plain graph is the artefact.
    """

    name: str
    mergeable: bool = True
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    hints: Hints

    @abstractmethod
    def module(self, model: nn.Module) -> nn.Module:
        """The module to export: same weights, written so that batch and length stay dynamic.

        Its forward takes ``inputs`` in order and returns ``outputs`` in order, then ``hints.token_mask`` and
        ``hints.apart`` if extra.
        """

    @abstractmethod
    def eager(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the original module; with merging applied to it, the outputs are the merged ones."""

    @abstractmethod
    def from_series(self, model: nn.Module, series: NDArray[np.float32]) -> Arrays:
        """Inputs for series ``[B, L]`` float32, NaN is missing."""

    def example(self, model: nn.Module, batch: int, length: int, seed: int = 0) -> Arrays:
        """Inputs for random walks of that many rows and steps."""
        steps = np.random.default_rng(seed).standard_normal((batch, length))
        return self.from_series(model, steps.cumsum(1).astype(np.float32))

    def to_trace(self, model: nn.Module, batch: int, length: int) -> Arrays:
        """Inputs of shapes that stand for all others when the exporter traces :meth:`module`; values do not matter.

        By default an example of that size. A component that computes otherwise below some length asks for a longer one.
        """
        return self.example(model, batch, length)


class Generation(Component):
    """All components of a model in a row, for a family whose first component does not forecast alone.

    What parity compares, and how the merge cost forecasts with the exported files. ``inputs`` are those of the first
    component, then what the others are given instead of forecasts of their own (teacher forcing); :meth:`eager` is the
    whole original.
    """

    name = "decoder"
    mergeable = False
    hints = Hints()

    def module(self, model: nn.Module) -> nn.Module:
        """There is none: several graphs in a row are no module."""
        raise NotImplementedError("several graphs in a row are no module")

    @abstractmethod
    def follow(self, sessions: Mapping[str, Any]) -> Callable[[Arrays, Arrays], Arrays]:
        """The components behind the first.

        Args:
            sessions: a :class:`~tsmerge_export.backends.onnxruntime.session.GraphSession` for each of them, by name.

        Returns:
            (:attr:`inputs`, outputs of the first component) -> :attr:`outputs`.
        """

    @abstractmethod
    def forecaster(self, sessions: Mapping[str, Any], memory: int) -> Forecast:
        """A forecast by the files alone, for the merge cost.

        Args:
            sessions: as for :meth:`follow`. memory: bytes for what one part of a batch takes, about.
        """

    @abstractmethod
    def forecasts(self, sessions: Mapping[str, Any], memory: int) -> Forecasts:
        """What :func:`tsmerge_export.pipeline` makes of the same files, number by number. Otherwise as above."""


class Family(ABC):
    """A model family: how to recognise, build, export and instrument it.

    Attributes:
        name: as ``--family`` takes it.
        card: for people; None prints as unknown. published: for ``benchmarks/families.py``; None is left out there.
        default: what merges unless a setting says otherwise.
        hides_padding: whether every place that mixes tokens hides padding that merging leaves behind shorter rows
            (``MergeRun.proportion``), so that each row may merge by its own count.
        weight_names: parts of the names of weights in checkpoint files -> in the module, where they differ.
    """

    name: str
    card: Card | None = None
    published: Published | None = None
    default: Default = Default()
    hides_padding: bool = False
    weight_names: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a model's config (config.json as a dict) belongs to this family."""

    def another_head(self, config: Mapping[str, Any]) -> str | None:
        """Why not, for a config of the same models with a head that the family does not take; None for all others."""
        return None

    @abstractmethod
    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A module with random weights for a config. Raises UsageError for a config that does not fit.

        The module's ``config`` keeps the key ``tsmerge``, see :mod:`tsmerge_export.families.trained`.
        """

    @abstractmethod
    def config_of(self, model: nn.Module) -> dict[str, Any]:
        """The config from which :meth:`build` makes the same architecture (JSON-ready), with the key ``tsmerge``."""

    @abstractmethod
    def components(self, model: nn.Module) -> tuple[Component, ...]:
        """The graphs to export."""

    def generation(self, model: nn.Module) -> Generation | None:
        """For a family with several components: all of them in a row. None: the first one forecasts alone."""
        return None

    @abstractmethod
    def merge_points(self, model: nn.Module) -> MergePoints:
        """Where tokens can be merged."""

    @abstractmethod
    def instrument(self, model: nn.Module, run: MergeRun) -> Sequence[Handle]:
        """Hook the model so that it calls ``run.merge`` at every point and aligns what follows."""

    @abstractmethod
    def horizon(self, model: nn.Module) -> int:
        """Steps that one forecast covers."""

    @abstractmethod
    def context(self, model: nn.Module) -> int:
        """Longest context in steps that the model reads; longer series are cut to their end."""

    def objective(self, model: nn.Module) -> Objective | None:
        """What the model predicts and how it is put to it, for training; None where the family does not say."""
        return None

    def quantile_levels(self, model: nn.Module) -> tuple[float, ...]:
        """Quantile levels that :meth:`forecast` returns; a point forecast counts as the median."""
        return (0.5,)

    def pipeline(self, model: nn.Module) -> dict[str, Any]:
        """What a forecaster needs besides the components (JSON-ready), for the manifest: at least
        ``context_length`` and ``prediction_length``."""
        return {"context_length": self.context(model), "prediction_length": self.horizon(model)}

    @abstractmethod
    def forecast(
        self, model: nn.Module, run: Callable[[Arrays], Arrays], series: NDArray[np.float32], seed: int = 0
    ) -> NDArray[np.float32]:
        """Forecast through exported components.

        Args:
            model: the original module, for whatever is not exported yet.
            run: runs the family's first component: inputs by name -> outputs by name.
            series: ``[B, L]`` float32, NaN is missing.
            seed: for sampling.

        Returns:
            ``[B, len(quantile_levels), horizon]`` float32.
        """
