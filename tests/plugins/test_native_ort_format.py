"""ORT format with native operators: they stay in the file, and whoever loads it needs their library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import artefacts
from tsmerge_export.backends.onnxruntime.ort_format import open_portable
from tsmerge_export.errors import UnsupportedError
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.ort_format import convert


def test_they_stay_and_the_library_is_needed(operators: Path, tmp_path: Path) -> None:
    file = artefacts.built("bolt-tiny", MergeConfig(ratio="1/4", min_tokens=2)).merged
    native, portable = tmp_path / "native.ort", tmp_path / "portable.ort"
    convert("model", file, native, plugin=operators, threads=1)
    convert("model", file, portable, threads=1)
    assert native.stat().st_size < portable.stat().st_size
    series = np.random.default_rng(0).standard_normal((2, 96)).cumsum(axis=1).astype(np.float32)
    want, got = (open_portable(one, 1, operators).run(None, {"context": series})[0] for one in (file, native))
    assert np.array_equal(want, got)
    with pytest.raises(UnsupportedError, match="cannot load it: "):
        open_portable(native, 1, None)
