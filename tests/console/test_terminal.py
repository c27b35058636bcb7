"""Tables fit the terminal, whatever it is, and lose nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from tsmerge_export.console import terminal
from tsmerge_export.tools.bench.compare import Row
from tsmerge_export.tools.bench.show import print_rows

HEADER = ("candidate", *(f"figure {i}" for i in range(12)), "why")
ROWS = [
    (f"a candidate with a long name {row}", *(f"{row * 100 + i}.25" for i in range(12)), "words " * 12)
    for row in range(3)
]


def shown(width: int) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    terminal.print_table(HEADER, ROWS, "a title", (0, 13), out)
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [50, 80, 100, 132, 400])
def test_fits_and_shows_every_figure_once(width: int) -> None:
    text = shown(width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for row in ROWS:
        for cell in row[1:13]:
            assert text.count(f" {cell} ") == 1, cell
    for name in HEADER[1:13]:
        assert text.split().count(name.split()[1]) >= 1
    assert text.count("words") == 12 * len(ROWS)
    assert text.count("a title") == 1


def test_one_table_where_there_is_room() -> None:
    assert shown(400).count("candidate with") == len(ROWS)
    assert shown(80).count("candidate") > shown(400).count("candidate")


def test_a_pipe_has_80_columns_and_columns_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from tsmerge_export.console.terminal import console; print(console().width)"
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "TERM")}
    for more, width in (({}, "80"), ({"COLUMNS": "132"}, "132")):
        run = subprocess.run(
            [sys.executable, "-c", code], env={**env, **more}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert run.stdout.strip() == width, run.stderr


def test_bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    full = Row("model", "onnxruntime, merged", 8, 512, 2, 20, *(1234.5,) * 5, 1.25, 1.5, 10.5, 2.0, 0.6, 0.25)
    failed = Row("model", "openvino", 8, 512, 2, error="no such operator " * 6)
    print_rows([full, failed], "local")
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    assert all(len(line) <= 80 for line in out.splitlines() if "failed" not in line)
    for text in ("1234.5", "1.25", "1.50", "10.50", "25%", "openvino failed: no such operator"):
        assert text in out
