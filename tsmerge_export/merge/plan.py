"""A plan: which method runs at which merge point, with which attributes. Families and the rewriter see only this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache

from torch import Tensor

from tsmerge_export.methods.combine import Merged
from tsmerge_export.methods.method import Attributes, Evidence, Method, Place
from tsmerge_export.settings import registry
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.settings.method import MethodSpec


@cache
def _loaded(spec: MethodSpec) -> Method:
    made: Method = registry.load(spec, spec.reference)()
    return made


class _Methods(Mapping[str, Method]):
    """The methods by name; each is imported when it is asked for."""

    def __getitem__(self, name: str) -> Method:
        if name not in registry.names():
            raise KeyError(name)
        return _loaded(registry.spec(name))

    def __iter__(self) -> Iterator[str]:
        return iter(registry.names())

    def __len__(self) -> int:
        return len(registry.names())


METHODS: Mapping[str, Method] = _Methods()


@dataclass(frozen=True)
class MergeStep:
    """One merge at one point of a model."""

    layer: int
    method: Method
    attributes: Attributes

    @property
    def op_type(self) -> str:
        """Operator type in the ONNX domain ``tsmerge``."""
        return self.method.op_type

    def __call__(self, x: Tensor, size: Tensor | None, metric: Tensor | None = None) -> Merged:
        """Merge ``x [B, N, D]`` with ``size [B, N]`` float32 (None: all 1), by ``metric [B, N, Dm]`` (None: x)."""
        return self.method.merge(x, x if metric is None else metric, size, self.attributes)

    @property
    def at_run_time(self) -> bool:
        """Whether its ratio is chosen when it runs; the attributes have what it is where nobody chooses."""
        return bool(self.attributes.get("run_time"))

    @property
    def pads(self) -> bool:
        """Whether rows may come out shorter than others, with padding behind: tokens of size 0 that attention must not
        see."""
        return self.method.pads

    def at(self, ratio: Fraction) -> MergeStep:
        """The same step with a ratio that was chosen, from 0 to 1/2."""
        chosen = {"ratio_num": ratio.numerator, "ratio_den": ratio.denominator}
        return replace(self, attributes={**self.attributes, **chosen})

    def evidence(self, x: Tensor, size: Tensor | None, metric: Tensor | None = None) -> Evidence:
        """The scores behind the decision of the same call."""
        return self.method.evidence(x, x if metric is None else metric, size, self.attributes)


def make_plan(
    config: MergeConfig, points: int, *, protect_first: int = 0, protect_last: int = 0
) -> dict[int, MergeStep]:
    """Steps by layer index, for a model with ``points`` merge points.

    Args:
        protect_first, protect_last: special tokens of the model at either end; what the config protects comes on top.

    Raises:
        UsageError: the config names a layer that is not there, or has a list of another length.
    """
    layers = config.select_layers(points)
    if not layers:
        return {}
    config.check_turns(len(layers))
    method = _loaded(registry.spec(config.method).of(config))
    protect_last += config.protect_newest  # R13.8
    plan = {}
    for turn, layer in enumerate(layers):
        if config.takes("ratio") and not any(config.amount(turn, len(layers))):
            continue  # the end of a linear schedule, or an r of 0
        place = Place(layer, points, turn, len(layers), protect_first, protect_last)
        plan[layer] = MergeStep(layer, method, method.attributes(config, place))
    return plan
