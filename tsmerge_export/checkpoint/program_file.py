"""``.pt2`` files of ``torch.export.save``."""

from __future__ import annotations

import logging
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
        told = _Told()
        logger = logging.getLogger("torch.export")
        logger.addHandler(told)
        try:
            return torch.export.load(clean)
        except Exception as error:  # torch's reader raises many types
            lines = str(told.error or error).strip().splitlines() or [type(error).__name__]
            reason = " ".join(lines[-1].split())[:160]  # before it, torch shows the node and a traceback
            raise UnsupportedError(f"{path}: torch {torch.__version__} cannot read it: {reason}") from error
        finally:
            logger.removeHandler(told)


class _Told(logging.Handler):
    """Keeps the error that torch's reader logs; what it raises only says that there was one."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.error = record.exc_info[1]
