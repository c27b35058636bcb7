"""What --static cannot do is refused in one line with the right exit code, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.said import Capture, error_of
from tsmerge_export.cli import main_export


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--static", "8"], 2, "--static 8: must be BATCHxLENGTH, such as 8x512"),
        (["--static", "0x512"], 2, "--static 0x512: batch and length must be whole numbers from 1"),
        (["--static", "8x-1"], 2, "--static 8x-1: must be BATCHxLENGTH"),
        (["--static", "1x257"], 2, "--static 1x257: tiny reads at most 256 steps"),
        (["--static", "8x64", "--inline"], 2, "--inline: files of one shape keep their merge nodes"),
        (["--static", "8x64", "--runtime", "openvino"], 2, "--static 8x64 is for --runtime onnxruntime"),
        (["--static", "8x64", "--precision", "int8"], 3, "--static 8x64: files below float32 have no form"),
        (
            ["--static", "8x64", "--merge", "dynamic", "--threshold", "0.5"], 3,
            "--static 8x64: --merge dynamic has no lengths that are constants: how many tokens stay follows from the "
            "data; use --merge local or global, or leave out --static",
        ),
        (["--static", "8x64", "--merge", "pitome"], 3, "its operator has no such form; use --merge local or global"),
        (["--static", "8x64", "--ratio", "runtime"], 3, "--static 8x64: --ratio runtime chooses lengths when"),
    ],
)  # fmt: skip
def test_refusals(model: str, capsys: Capture, flags: list[str], code: int, said: str) -> None:
    before = sorted(Path().rglob("*"))
    assert said in error_of(capsys, main_export([model, *flags]), code)
    assert sorted(Path().rglob("*")) == before
