"""Random merge problems shared by the property tests and the fuzzer: one seed, one problem."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import torch

from tests.methods import oracle
from tests.methods.dynamic import oracle as oracle_dynamic
from tsmerge_export.merge import Merged, dynamic_merge, local_merge, series_merge

DTYPES: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}

#: Absolute and relative tolerance of merged values per element type.
TOLERANCES = {"float32": (1e-5, 1e-4), "float16": (2.5e-3, 1e-3), "bfloat16": (2e-2, 1e-2)}

#: Two similarities closer than this may legitimately be ordered differently by two float32 implementations.
MARGIN = 1e-6

# "levels" is piecewise constant with levels that no float sums exactly: there the ranks' rounding makes the ties.
# Kinds whose similarities are one correctly rounded division, whatever the order of summation: ties are ties
# everywhere. Integer vectors are not enough for that: their norms must be whole too, since torch's vectorised square
# root of, say, 19 is one unit in the last place off.
EXACT = ("constant", "piecewise", "lattice")
_WHOLE_NORM = ((1,), (3, 4), (1, 2, 2), (2, 3, 6), (1, 1, 1, 1), (1, 1, 3, 5), (2, 4, 5, 6))
KINDS = (*EXACT, "levels", "normal", "huge", "tiny")
PADDINGS = ("none", "left", "random", "all", "sizes")
SPOILS = ("none", "nan", "inf", "zero", "mixed")

#: How much an operator removes, and around what.
AMOUNTS: tuple[dict[str, Any], ...] = tuple(
    {"r": r, "ratio": ratio, "min_tokens": least, "protect_first": first, "protect_last": last}
    for r, ratio, least, first, last in (
        (1, None, 0, 0, 0),
        (5, None, 0, 0, 1),
        (1000, None, 0, 1, 0),
        (0, None, 0, 0, 0),
        (1000, None, 7, 0, 0),
        (None, (1, 4), 0, 0, 0),
        (None, (1, 2), 4, 2, 1),
        (None, (1, 10), 0, 0, 1),
        (None, (1, 3), 12, 3, 3),
        (None, (1, 2), 0, 0, 0),
    )
)
#: Settings of the operator. A finite list, so that sessions can be reused; ratio is (numerator, denominator).
SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"k": k, **amount} for k in (1, 2, 3, 5, 33, None) for amount in AMOUNTS
)


#: The same of dynamic merging. 0.6 and 0.8 are cosines of the lattice: ranks equal to the threshold are common there.
DYNAMIC_SETTINGS: tuple[dict[str, Any], ...] = tuple(
    {"k": k, "threshold": threshold, "min_tokens": least, "protect_first": first, "protect_last": last}
    for k in (1, 2, 3, 5, 33, None)
    for threshold, least, first, last in (
        (0.9, 0, 0, 0),
        (0.5, 0, 0, 1),
        (1.0, 0, 1, 0),
        (-1.0, 0, 0, 0),
        (-1.0, 20, 0, 0),
        (0.6, 4, 2, 1),
        (0.8, 0, 0, 0),
        (0.0, 12, 3, 3),
        (-0.5, 0, 0, 1),
        (0.5, 1000, 0, 0),
    )
)


def _with_options(table: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """A third of the settings by l2 or dot, and those with k = 1 made causal, by any similarity."""
    out = []
    for number, setting in enumerate(table):
        if number % 3 == 0:
            out.append({**setting, "similarity": ("l2", "dot")[number % 2]})
        if setting["k"] == 1:
            similarity = ("cosine", "cosine", "l2", "dot")[number % 4]
            first = max(1, setting["protect_first"])
            out.append({**setting, "similarity": similarity, "causal": True, "protect_first": first})
    return tuple(out)


OPTION_SETTINGS, DYNAMIC_OPTION_SETTINGS = _with_options(SETTINGS), _with_options(DYNAMIC_SETTINGS)


@dataclass(frozen=True)
class Case:
    """One merge problem, of local merging; arrays follow from the fields. Other methods are subclasses."""

    op_type: ClassVar[str] = "LocalMerge"
    table: ClassVar[tuple[dict[str, Any], ...]] = SETTINGS
    data_dependent: ClassVar[bool] = False  # the number of removed tokens hangs on similarities too
    margin: ClassVar[float] = MARGIN
    pads: ClassVar[bool] = False  # shorter rows end in padding
    noisy: ClassVar[bool] = False  # there is more than products, sums and roots below a decision

    batch: int
    tokens: int
    features: int
    metric_features: int  # 0: the metric is x itself
    kind: str
    padding: str
    spoil: str
    dtype: str
    setting: int  # index into table
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the reference, the ratio as a Fraction."""
        setting = dict(self.table[self.setting])
        setting["ratio"] = None if setting["ratio"] is None else Fraction(*setting["ratio"])
        return setting

    @property
    def attributes(self) -> dict[str, int | float]:
        """Attributes of the operator."""
        setting = self.table[self.setting]
        num, den = setting["ratio"] or (0, 1)
        names = ("min_tokens", "protect_first", "protect_last")
        return {
            "k": setting["k"] or 0,
            "r": setting["r"] or 0,
            "ratio_num": num,
            "ratio_den": den,
            **{name: setting[name] for name in names},
            **_optional(setting),
        }

    @property
    def exact(self) -> bool:
        """Whether decisions are free of rounding, so that two implementations must agree."""
        return not self.noisy and self.kind in EXACT

    def _values(self, rng: np.random.Generator, kind: str, features: int) -> np.ndarray:
        shape = (self.batch, self.tokens, features)
        if kind == "constant":
            return np.broadcast_to(_lattice(rng, (self.batch, 1, features)), shape).copy()
        if kind in ("piecewise", "levels"):
            steps = np.cumsum((rng.random((self.batch, self.tokens)) < 0.2).astype(np.int64), axis=1)
            size = (self.batch, self.tokens + 1, features)
            exact = kind == "piecewise"
            levels = _lattice(rng, size) if exact else rng.standard_normal(size).astype(np.float32)
            return np.take_along_axis(levels, steps[..., None], axis=1)
        if kind == "lattice":
            return _lattice(rng, shape)
        half = self.dtype == "float16"
        scale = {"normal": 1.0, "huge": 3e3 if half else 1e15, "tiny": 1e-3 if half else 1e-15}[kind]
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x ``[B, N, D]`` and metric ``[B, N, Dm]`` of the case's dtype, size ``[B, N]`` float32."""
        rng = np.random.default_rng(self.seed)
        metric = self._values(rng, self.kind, self.metric_features or self.features)
        x = self._values(rng, "normal", self.features) if self.metric_features else metric.copy()
        for array in (x, metric) if self.metric_features else (x,):
            self._spoil(rng, array)
        if not self.metric_features:
            metric = x
        size = np.ones((self.batch, self.tokens), np.float32)
        if self.padding == "left":
            size[np.arange(self.tokens) < rng.integers(0, self.tokens + 1, (self.batch, 1))] = 0
        elif self.padding == "random":
            size[rng.random(size.shape) < 0.3] = 0
        elif self.padding == "all":
            size[rng.random(self.batch) < 0.7] = 0
        elif self.padding == "sizes":
            size = rng.integers(0, 9, size.shape).astype(np.float32)
        dtype = DTYPES[self.dtype]
        return x.astype(dtype), metric.astype(dtype), size

    def _spoil(self, rng: np.random.Generator, array: np.ndarray) -> None:
        """Put NaN, infinities and zero vectors into ``array``, in place."""
        if self.spoil in ("zero", "mixed"):
            array[rng.random(array.shape[:2]) < 0.2] = 0
        if self.spoil in ("nan", "mixed"):
            array[rng.random(array.shape) < 0.1] = np.nan
            array[rng.random(array.shape[:2]) < 0.1] = np.nan
        if self.spoil in ("inf", "mixed"):
            hit = rng.random(array.shape) < 0.1
            array[hit] = np.where(rng.random(int(hit.sum())) < 0.5, np.inf, -np.inf)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The arrays as tensors of the same types."""
        dtype = getattr(torch, self.dtype)
        x, metric, size = self.arrays()
        # Every float16 and bfloat16 is a float32; torch cannot read the numpy extension type itself.
        tokens, features = (torch.from_numpy(v.astype(np.float32)).to(dtype) for v in (x, metric))
        return tokens, features, torch.from_numpy(size)

    def reference(self) -> Merged:
        """What the package's reference makes of it."""
        return local_merge(*self.tensors(), **self.settings)

    def outcome(self) -> tuple[np.ndarray, ...]:
        """The reference's (y widened to float32, size, kept, target)."""
        merged = self.reference()
        return merged.y.float().numpy(), merged.size.numpy(), merged.kept.numpy(), merged.target.numpy()

    def expected(self) -> list[oracle.Row]:
        """What the naive oracle makes of it, per row."""
        x, metric, size = self.arrays()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [
                self.expected_row(x[b].astype(np.float32), metric[b].astype(np.float32), size[b])
                for b in range(self.batch)
            ]

    def expected_row(self, x: np.ndarray, metric: np.ndarray, size: np.ndarray) -> oracle.Row:
        """What the naive oracle makes of one row, all float32."""
        return oracle.merge_row(x, metric, size, **self.settings)


class DynamicCase(Case):
    """A problem of dynamic merging."""

    op_type = "DynamicMerge"
    table = DYNAMIC_SETTINGS
    data_dependent = True

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the reference."""
        return dict(self.table[self.setting])

    @property
    def attributes(self) -> dict[str, int | float]:
        """Attributes of the operator."""
        settings = self.settings
        return {**settings, "k": settings["k"] or 0, **_optional(settings)}

    def reference(self) -> Merged:
        """What the package's reference makes of it."""
        return dynamic_merge(*self.tensors(), **self.settings)

    def expected(self) -> list[oracle.Row]:
        """What the naive oracle makes of it, per row; the margins include that of the count."""
        x, metric, size = self.arrays()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return oracle_dynamic.merge_batch(
                x.astype(np.float32), metric.astype(np.float32), size, **self.settings
            )


class OptionCase(Case):
    """A problem of local merging by another similarity than the cosine, whose noise is larger, or causal."""

    table = OPTION_SETTINGS


class DynamicOptionCase(DynamicCase):
    """The same of dynamic merging."""

    table = DYNAMIC_OPTION_SETTINGS


class SeriesCase(DynamicCase):
    """A problem of dynamic merging per series."""

    op_type = "SeriesMerge"
    pads = True

    def reference(self) -> Merged:
        """What the package's reference makes of it."""
        return series_merge(*self.tensors(), **self.settings)

    def expected(self) -> list[oracle.Row]:
        """What the naive oracle makes of every row alone, filled up."""
        x, metric, size = self.arrays()
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return oracle_dynamic.merge_apart(
                x.astype(np.float32), metric.astype(np.float32), size, **self.settings
            )


class SeriesOptionCase(SeriesCase):
    """The same by another similarity than the cosine, or causal."""

    table = DYNAMIC_OPTION_SETTINGS


def _optional(setting: dict[str, Any]) -> dict[str, int]:
    """Attributes that are left out where a setting does without."""
    out = {"causal": 1} if setting.get("causal") else {}
    if "similarity" in setting:
        out["similarity"] = ("cosine", "l2", "dot").index(setting["similarity"])
    return out


def _lattice(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """float32 vectors of whole coordinates and whole norm, with random order, signs and scale."""
    out = np.zeros(shape, np.float32)
    known = [v for v in _WHOLE_NORM if len(v) <= shape[2]]
    for index in np.ndindex(shape[:2]):
        vector = known[int(rng.integers(len(known)))]
        place = rng.permutation(shape[2])[: len(vector)]
        out[index][place] = vector * rng.choice((-1, 1), len(vector)) * rng.integers(1, 4)
    return out


def random_case(
    rng: np.random.Generator, *, tokens: int = 40, features: int = 6, batch: int = 3, of: type[Case] = Case
) -> Case:
    """A case of a method with every field drawn at random, sizes up to those given."""

    def pick(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    return of(
        batch=int(rng.integers(1, batch + 1)),
        tokens=int(rng.integers(1, tokens + 1)),
        features=int(rng.integers(1, features + 1)),
        metric_features=int(rng.integers(0, features - 1)),
        kind=pick(KINDS),
        padding=pick(PADDINGS),
        spoil=pick(SPOILS),
        dtype=pick(tuple(DTYPES)),
        setting=int(rng.integers(len(of.table))),
        seed=int(rng.integers(2**32)),
    )


def untouched(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """x ``[2, N, 5]`` with a NaN of its own bits, and sizes, all different: for what must come out bit for bit."""
    x = np.random.default_rng(0).standard_normal((2, tokens, 5)).astype(np.float32)
    x.view(np.int32)[0, 0, 0] = 0x7FC12345
    return x, np.arange(2.0 * tokens, dtype=np.float32).reshape(2, tokens)


def compare_with_oracle(case: Case, merged: Any) -> str | None:
    """Compare ``(y, size, kept, target)`` (arrays, y widened to float32) with the oracle; None is equality.

    Returns:
        ``"flip"`` for a decision that hung on less than MARGIN, otherwise what differs.
    """
    y, size, kept, target = (np.asarray(v) for v in merged)
    rows = case.expected()
    if kept.shape != (case.batch, len(rows[0].kept)):
        if case.data_dependent and not case.exact and min(row.margin for row in rows) < case.margin:
            return "flip"
        return f"kept has shape {kept.shape}, expected {(case.batch, len(rows[0].kept))}"
    for b, row in enumerate(rows):
        if kept[b].tolist() != row.kept or target[b].tolist() != row.target:
            if not case.exact and row.margin < case.margin:
                return "flip"
            return f"row {b}: kept {kept[b].tolist()} target {target[b].tolist()}, expected {row.kept} {row.target}"
        if not np.array_equal(size[b], np.array(row.size, np.float32)):
            return f"row {b}: size {size[b].tolist()}, expected {row.size}"
    x = case.arrays()[0].astype(np.float32)
    for b, row in enumerate(rows):
        problem = _values_differ(case, y[b], row, x[b])
        if problem:
            return f"row {b}: {problem}"
    return None


def _values_differ(case: Case, y: np.ndarray, row: oracle.Row, x: np.ndarray) -> str | None:
    """Merged tokens to the tolerance of the dtype, unmerged ones bit for bit."""
    touched = np.array(row.touched, dtype=bool)
    # bfloat16 reaches the tests by way of float32 casts, which may quieten a NaN: compare NaN as NaN there.
    given, want = y[~touched], x[row.kept][~touched]
    same_bits = given.view(np.int32) == want.view(np.int32)
    if not (same_bits | (np.isnan(given) & np.isnan(want))).all():
        return "an unmerged token changed"
    with np.errstate(all="ignore"):
        merged = np.asarray(row.y, np.float64)[touched]
        expected: np.ndarray = merged.astype(DTYPES[case.dtype]).astype(np.float32)
    atol, rtol = TOLERANCES[case.dtype]
    atol *= float(np.abs(x[np.isfinite(x)]).max(initial=0.0))  # relative to the scale of the tokens
    if not np.allclose(y[touched], expected, atol=atol, rtol=rtol, equal_nan=True):
        return f"merged values {y[touched].tolist()}, expected {expected.tolist()}"
    return None
