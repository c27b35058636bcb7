"""``.pt2`` files of ``torch.export.save``."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.export import ExportedProgram

from tsmerge_export.checkpoint.program_archive import rewrite_program
from tsmerge_export.errors import UnsupportedError


def read_program(path: Path) -> ExportedProgram:
    """An exported program, from a file of which only tensors and the checked schema reach torch.

    Its inputs are positional and its outputs a tuple, in the order of the file.

    Raises:
        UsageError: missing, truncated, above the size cap, or holding what would have to be executed.
        UnsupportedError: of another torch version, or with operators other than aten's.
    """
    with TemporaryDirectory(prefix="tsmerge-") as folder:
        clean = Path(folder) / "program.pt2"
        rewrite_program(path, clean)
        try:
            return torch.export.load(clean)
        except Exception as error:  # torch's reader raises many types
            reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
            raise UnsupportedError(f"{path}: torch {torch.__version__} cannot read it: {reason}") from error
