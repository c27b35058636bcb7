"""How the verdicts are taken: one value that goes from the command line to every proof and every timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort

from tsmerge_export.backends.onnxruntime.direct import open_session
from tsmerge_export.backends.onnxruntime.place import HERE, Place
from tsmerge_export.backends.onnxruntime.session import GraphSession
from tsmerge_export.errors import UsageError
from tsmerge_export.settings.one_shape import OneShape
from tsmerge_export.verify import corpus, tolerances
from tsmerge_export.verify.tolerances import Tolerance

#: Told about what is done: (so many, of so many).
Told = Callable[[int, int], None]

#: One case in so many of the corpus: prime to the number of kinds, so that they take turns.
_QUICK = 17


@dataclass(frozen=True)
class Checks:
    """Settings of the verdicts. They change no artefact.

    Args:
        atol, rtol: instead of the family's parity tolerance, see :mod:`.tolerances`.
        threads: for ONNX Runtime and PyTorch; None is what suits the machine.
        seed: of the parity corpus, of generated inputs and of sampling.
        cases: series for parity instead of the corpus; a graph from a file has none.
        timed: whether speed is measured in earnest, by many calls of usual inputs; False: one call.
        quick: few cases, and not timed: for tests of anything but the verdicts. What comes out proves little.
        shape: the one that files are made for, at which merge cost and speed are measured; None is what is usual.
        place: where ONNX Runtime runs the files. Parity holds what it computes there against PyTorch on the CPU, within
            the same tolerances, in float32 proper (:meth:`~.place.Place.exact`); times and merge cost are those of the
            providers as a user has them. The reference of a graph from a file runs on the CPU.

    Raises:
        UsageError: a number is out of range.
    """

    atol: float | None = None
    rtol: float | None = None
    threads: int | None = None
    seed: int = 0
    cases: Sequence[corpus.Case] | None = None
    timed: bool = True
    quick: bool = False
    shape: OneShape | None = None
    place: Place = HERE

    def __post_init__(self) -> None:
        tolerances.check_range(self.atol, self.rtol)
        for name, value, least in (("threads", self.threads, 1), ("seed", self.seed, 0)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and value >= least):
                raise UsageError(f"{name} {value!r} must be a whole number of at least {least}")
        if self.cases is not None:
            object.__setattr__(self, "cases", tuple(self.cases))

    def tolerance(self, family: str, dtype: str = "float32") -> Tolerance:
        """How far an artefact of a family may be from its model."""
        return tolerances.end_to_end(family, dtype, self.atol, self.rtol)

    def noisy(self, dtype: str = "float32") -> bool:
        """Whether a row beyond the tolerance may be within the model's own float32 noise: not where one was given."""
        return self.atol is None and self.rtol is None and dtype == "float32"

    def corpus(self, context: int, avoid: tuple[int, int] | None = None) -> list[corpus.Case]:
        """The series that parity runs on, see :func:`.corpus.cases`."""
        if self.cases is not None:
            return list(self.cases)
        found = list(corpus.cases(context, seed=self.seed, avoid=avoid))
        return found[::_QUICK] if self.quick else found

    @property
    def whole(self) -> bool:
        """Whether parity runs on all that it has, so that more may be added."""
        return self.cases is None and not self.quick

    @property
    def times(self) -> bool:
        """Whether speed is measured in earnest."""
        return self.timed and not self.quick

    def runs(self, usual: int) -> int:
        """Timed calls."""
        return usual if self.times else 1

    # Every session of a verdict is opened here: by what says where it runs.

    def open(self, source: Path | onnx.ModelProto, *, timed: bool = False) -> ort.InferenceSession:
        """A file, or a model in memory, in ONNX Runtime; see :func:`~.direct.open_session`."""
        return open_session(
            source, self.threads, timed=timed, place=self.place if timed else self.place.exact()
        )

    def forecaster(self, file: Path, *, quiet: bool = False) -> GraphSession:
        """A file as a forecaster runs it.

        Args:
            quiet: idle threads do not spin, which would take the cores from what is timed or run beside it. Such a
                session is always in this process: it is for files that have been proved.
        """
        place = self.place if quiet else self.place.exact()
        if not quiet:
            return GraphSession(file, threads=self.threads, providers=place.providers, plugin=place.plugin)
        options = ort.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return GraphSession(
            file, threads=self.threads, options=options, providers=place.providers, plugin=place.plugin
        )


#: As a user gets them who says nothing.
USUAL = Checks()
