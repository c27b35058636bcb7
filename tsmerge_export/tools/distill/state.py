"""What a training needs to go on after a kill, to the bit: one file, written whole.

A safetensors file: the trained weights, their average, the best ones, and the optimiser's moments as tensors; where the
training stands, and what it belongs to, as JSON in its metadata. Nothing in it is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tsmerge_export import typed
from tsmerge_export.checkpoint.safetensors_file import read_safetensors
from tsmerge_export.errors import UsageError, first_line
from tsmerge_export.files.output_file import OutputFile

FORMAT = 2
_REMEDY = "start again without --resume"


@dataclass
class Standing:
    """Where a training stands.

    Attributes:
        step: steps done, of ``steps``. validations: how many it has in all. batch: windows per step.
        seconds: of training so far. rng: of the sampler, as numpy has it.
        best: lowest mean increase on validation, per cent, at ``best_step``; ``stale``: validations since then.
        finished: whether nothing is left to do.
        sums: of both parts of the loss and of windows since the last validation, and how many steps.
        losses: ``[step, likelihood, distance]``, means between validations.
        curve: ``{"step", "seconds", "mean", "increase": {ratio: per cent}}`` of every validation.
        notes: sentences for the user.
    """

    step: int = 0
    steps: int = 0
    validations: int = 0
    batch: int = 0
    seconds: float = 0.0
    rng: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    sums: tuple[Any, ...] = (0.0, 0.0, 0.0)  # Any: a loss may be no finite number
    losses: tuple[tuple[Any, ...], ...] = ()
    curve: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


class StateFile:
    """The state of one training.

    Args:
        path: of the file. identity: what the training depends on, JSON-ready; another's state is refused.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity = json.loads(json.dumps({"format": FORMAT, **identity}))

    def save(self, standing: Standing, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write all of it, in place of what was there, or nothing.

        Args:
            tensors: by group and name.

        Raises:
            UsageError: it cannot be written.
        """
        flat = {
            f"{group}/{name}": value.detach().cpu().contiguous().clone()
            for group, values in tensors.items()
            for name, value in values.items()
        }
        metadata = {"identity": json.dumps(self._identity), "standing": json.dumps(asdict(standing))}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"state {self.path}: cannot be written ({error.strerror})") from None
        OutputFile("state", self.path).write(lambda place: save_file(flat, place, metadata))

    def load(self) -> tuple[Standing, dict[str, dict[str, Tensor]]] | None:
        """What :meth:`save` wrote; None where there is nothing.

        Raises:
            UsageError: it is damaged, or belongs to another training.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
            identity, standing = (json.loads(metadata[key]) for key in ("identity", "standing"))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UsageError(
                f"--resume: {self.path} cannot be read ({first_line(error)}); {_REMEDY}"
            ) from None
        self._check(identity)
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in read_safetensors(self.path).items():
            group, _, leaf = name.partition("/")
            groups.setdefault(group, {})[leaf] = value
        return typed.read(Standing, standing, self.path, "standing", _REMEDY), groups

    def _check(self, found: Any) -> None:
        found = found if isinstance(found, dict) else {}
        differing = sorted(
            key for key in {*found, *self._identity} if found.get(key) != self._identity.get(key)
        )
        if differing:
            raise UsageError(
                f"--resume: {self.path} was made with another {', '.join(differing)}; give what it was made with, or "
                "start again without --resume"
            )
