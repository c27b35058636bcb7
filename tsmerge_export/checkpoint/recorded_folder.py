"""A checkpoint folder that a command of ours writes, with a record of how the weights came to be beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsmerge_export.checkpoint.model_folder import FILES, write_model_folder
from tsmerge_export.errors import UsageError
from tsmerge_export.files.atomic import fsync_tree
from tsmerge_export.files.beside import Beside, ChangedError, entries, look, sweep
from tsmerge_export.files.paths import real_path, room_for

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
        path = real_path(directory)
        if not path.name:
            raise UsageError(f"{flag}{directory}: is not a folder name")
        if not path.exists():
            sweep(path.parent, path.name)
        if path.is_dir():
            names = [name for name, _ in entries(path)]
            ours = not names or (self.record in names and all(map(self._ours, names)))
            if not ours:
                other = next((name for name in names if not self._ours(name)), names[0])
                raise UsageError(
                    f"{flag}{directory}: holds {other}, which no {self.maker} has written; choose another name"
                )
            if names and not force:
                raise UsageError(f"{flag}{directory}: exists already; add --force to replace it")
        return room_for(path, directory)

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
        seen = look(path)
        try:
            with Beside(path) as made:
                made.new.mkdir()
                write_model_folder(model, config, made.new)
                text = json.dumps(record, indent=2, allow_nan=False) + "\n"
                (made.new / self.record).write_text(text, encoding="utf-8")
                if beside is not None:
                    beside(made.new)
                fsync_tree(made.new)
                made.put(seen)
        except ChangedError as error:
            raise UsageError(
                f"-o {directory}: was made or changed by someone else meanwhile"
                + (
                    f"; theirs is kept in {error.kept}"
                    if error.kept
                    else "; it stays, and nothing is written"
                )
            ) from None
        except OSError as error:
            raise UsageError(f"-o {directory}: cannot be written ({error.strerror or error})") from None
        return path

    def _ours(self, name: str) -> bool:
        weights = name.startswith("model-") and name.endswith(".safetensors")
        return weights or name in (*FILES, self.record, *self.others)
