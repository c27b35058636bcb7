"""The log of a search: nobody else's file, one run at a time, whole lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsmerge_export.errors import UsageError
from tsmerge_export.tools.tune.log import kept

LINE = b'{"op_code":0,"worker_id":"w","study_name":"s","directions":[1]}\n'


def refused(log: Path, match: str) -> None:
    with pytest.raises(UsageError, match=match), kept(log):
        pass


def test_new_and_taken_up_again(tmp_path: Path) -> None:
    log = tmp_path / "a.tune.log"
    for _ in range(2):
        with kept(log), log.open("ab") as file:
            file.write(LINE)
    assert log.read_bytes() == 2 * LINE


@pytest.mark.parametrize(
    "content", [b"my notes\n", b"[1, 2]\n", b'{"op": 1}\n', b'{"op_code": 0', b"\xff\xfe\n"]
)
def test_other_files_stay_as_they_are(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "a.tune.log"
    log.write_bytes(content)
    refused(log, "is not the log of a search")
    assert log.read_bytes() == content


def test_one_run_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "a.tune.log"
    with kept(log):
        refused(log, "another run is searching there")
    with kept(log):
        pass


def test_what_a_killed_run_leaves(tmp_path: Path) -> None:
    """Half a line, at which every later run would fail, and optuna's lock, for which it would wait."""
    log = tmp_path / "a.tune.log"
    log.write_bytes(LINE + b'{"op_code":1,"wor')
    lock = tmp_path / "a.tune.log.lock"
    lock.symlink_to(log)
    with kept(log):
        assert log.read_bytes() == LINE
        assert not lock.is_symlink()


def test_no_place_for_it(tmp_path: Path) -> None:
    refused(
        tmp_path / "no" / "a.tune.log", r"cannot be written \(No such file or directory\); give another -o"
    )


def test_errors_of_the_search_are_not_the_logs(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), kept(tmp_path / "a.tune.log"):
        raise OSError("disk")
