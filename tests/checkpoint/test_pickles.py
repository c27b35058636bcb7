"""Files that could run code, and garbage: refused, and not run."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.checkpoint.helpers import fails
from tests.models import tiny
from tsmerge_export.checkpoint import save_checkpoint
from tsmerge_export.errors import UsageError


class _Bomb:
    """Unpickling it would leave a mark."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("how", ["module", "pickle", "bomb", "bomb-zip", "list", "nested"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, how: str) -> None:
    path, mark = tmp_path / "model.pt", tmp_path / "mark"
    bomb = _Bomb()
    bomb.mark = mark
    if how == "module":
        torch.save(nn.Linear(2, 2), path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(nn.Linear(2, 2)))
    elif how == "bomb":
        path.write_bytes(pickle.dumps(bomb))
    elif how == "bomb-zip":
        torch.save({"a": torch.ones(1), "b": bomb}, path)
    elif how == "list":
        torch.save([torch.ones(2)], path)
    else:
        torch.save({"model": {"a": torch.ones(2)}}, path)
    fails(UsageError, r"tsmerge_export\.save_checkpoint\(model, path\)", path)
    assert not mark.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / "model.pt")
    fails(UsageError, "TorchScript", tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80", b"PK\x03\x04"])
def test_garbage_pt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    fails(UsageError, r"model\.pt", tmp_path / "model.pt")


@pytest.mark.parametrize("keep", [100, 1000, -1, -100])
def test_truncated_pt(tmp_path: Path, keep: int) -> None:
    path = save_checkpoint(tiny("chronos-bolt"), tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:keep])
    fails(UsageError, "truncated", path)


def test_checkpoint_of_a_later_version_or_without_config(tmp_path: Path) -> None:
    path = save_checkpoint(tiny("chronos-bolt"), tmp_path / "model.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format_version": 99}, path)
    fails(UsageError, "format 99 is not known", path)
    torch.save({**content, "config": None}, path)
    fails(UsageError, "has no config", path)
