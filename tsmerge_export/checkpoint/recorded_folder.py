"""A checkpoint folder that a command of ours writes, with a record of how the weights came to be beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.checkpoint.model_folder import FILES, write_model_folder
from tsmerge_export.files.own_folder import check_own, write_own

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class RecordedFolder:
    """A kind of such folders.

    Attributes:
        record: name of the JSON file by which a folder is known to be ours. maker: what writes it, in words.
        others: names of what else may be in it.
    """

    record: str
    maker: str
    others: tuple[str, ...] = ()

    def check(self, directory: str | Path, force: bool = False, flag: str = "-o ") -> Path:
        """Check, before any work, that a checkpoint can be written to a folder. Makes missing parent folders.

        Args:
            flag: what stands before the folder in messages.

        Returns:
            The absolute path, links followed.

        Raises:
            UsageError: it is a file, exists, or with ``force`` holds what nothing of this kind has written.
        """
        return check_own(
            directory,
            force,
            marked=lambda path: (path / self.record).is_file(),
            ours=self._ours,
            maker=self.maker,
            flag=flag,
        )

    def write(
        self,
        directory: str | Path,
        model: nn.Module,
        config: Mapping[str, Any],
        record: Mapping[str, Any],
        force: bool = False,
        beside: Callable[[Path], object] | None = None,
    ) -> Path:
        """Write a checkpoint in the family's own format with its record: all of it or nothing.

        Args:
            record: JSON-ready, without what is no number. beside: writes more into the same folder.

        Returns:
            The folder.

        Raises:
            UsageError: something stands there, or it cannot be written; what stands there stays.
        """
        path = self.check(directory, force)

        def make(folder: Path) -> None:
            write_model_folder(model, config, folder)
            text = json.dumps(record, indent=2, allow_nan=False) + "\n"
            (folder / self.record).write_text(text, encoding="utf-8")
            if beside is not None:
                beside(folder)

        write_own(path, directory, make)
        return path

    def _ours(self, name: str) -> bool:
        weights = name.startswith("model-") and name.endswith(".safetensors")
        return weights or name in (*FILES, self.record, *self.others)
