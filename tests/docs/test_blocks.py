"""Every command and every Python block of README and pages runs, in the order of its page.

What people would have is there: ``data.csv`` and ``series.csv``, ``model.onnx``, a bundle ``bolt``, a folder
``path/to/model``, and under ``amazon/chronos-bolt-tiny`` the trained demo model. ``<family>-model`` is a tiny one of
that family, ``patch-mamba.pt`` one in a file. Commands run in this process: starting Python and PyTorch each time
takes longer than they do.
"""

from __future__ import annotations

import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.docs.blocks import BLOCKS, PAGES, ROOT, Block
from tests.graphs.models import export as export_graph
from tests.models import tiny, tiny_folder
from tsmerge_export import demo
from tsmerge_export.checkpoint import save_checkpoint
from tsmerge_export.cli import main, main_export

#: Checked by tests/docs/test_flags.py; the test-suite itself, linters and installing need no test.
_NOT_RUN = ("make", "pip")
#: What a command is run with instead: time, of which the result has no need here.
_LESS = {"10min": "15s", "15min": "5s"}
#: The command of most pages.
_BOLT = "tsmerge-export amazon/chronos-bolt-tiny --merge local --ratio 1/10 --data data.csv -o bolt"
_NAMES = {page: page.relative_to(ROOT).as_posix() for page in PAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    steps = np.arange(2400)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 2400))
    table = pd.DataFrame(
        {
            "timestamp": pd.date_range("2024-01-01", periods=2400, freq="h").strftime("%Y-%m-%d %H:%M"),
            "sales": (10 + 3 * np.sin(steps * 2 * np.pi / 24) + noise[0]).round(3),
            "load": (5 + np.cos(steps * 2 * np.pi / 24) + noise[1]).round(3),
        }
    )
    table.to_csv(root / "data.csv", index=False)
    table.to_csv(root / "series.csv", index=False)
    shutil.copytree(demo.CHRONOS_BOLT, root / "amazon" / "chronos-bolt-tiny")
    tiny_folder(root / "path" / "to" / "model")
    return root


def provide(name: str, world: Path, here: Path) -> None:
    """What a block names and its page has not made."""
    if (here / name).exists():
        return
    if name == "bolt":
        run_shell(shlex.split(_BOLT), world, here)
    elif name == "model.onnx":
        export_graph("plain", here / name, old=True)
    elif name == "t5":
        run_shell(["tsmerge-export", "chronos-t5-model", "--ratio", "1/10", "-o", "t5"], world, here)
    elif name == "patch-mamba.pt":
        save_checkpoint(tiny("patch-mamba"), here / name)
    elif name.endswith("-model"):
        tiny_folder(here / name, name.removesuffix("-model"))
    elif (world / name).is_file():
        shutil.copy(world / name, here / name)
    elif (world / name).is_dir():
        shutil.copytree(world / name, here / name)


def run_shell(words: list[str], world: Path, here: Path) -> None:
    """One command, with its redirections."""
    if words[0] in _NOT_RUN:
        return
    words = [_LESS.get(word, word) for word in words]
    with ExitStack() as stack:
        for sign, patch in (("<", "sys.stdin"), (">", "sys.stdout")):
            if sign in words:
                file, words = words[words.index(sign) + 1], [w for w in words if w != sign]
                words.remove(file)
                if sign == "<":
                    provide(file, world, here)
                opened = stack.enter_context((here / file).open("r" if sign == "<" else "w"))
                context = stack.enter_context(pytest.MonkeyPatch.context())
                context.setattr(patch, opened)
        output = words[words.index("-o") + 1] if "-o" in words else None
        for word in words[1:]:
            if word not in (output, "-"):
                provide(word, world, here)
        if words[:3] == ["python", "-m", "tsmerge_export"]:
            words = ["tsmerge", *words[3:]]
        call = {"tsmerge": main, "tsmerge-export": main_export}.get(words[0])
        assert call is not None, f"{words[0]} cannot be run here: give its fence a skip with the reason"
        made = world / "made" / "-".join(words).replace("/", "-")
        if made.is_dir():  # the same command on another page: the same bundle
            shutil.copytree(made, here / str(output))
            return
        assert call(words[1:]) == 0, " ".join(words)
        if words[0] == "tsmerge-export":
            shutil.copytree(here / str(output), made)


def run_python(text: str, scope: dict[str, Any], world: Path, here: Path) -> None:
    for name in ("bolt", "t5", "path/to/model"):
        if f'"{name}"' in text:
            provide(name, world, here)
    exec(text, scope)


def names_for_python(world: Path, text: str) -> dict[str, Any]:
    """What the text around a block has: series, and an eager model where it is used."""
    import tsmerge_export as tsm

    wave = np.sin(np.arange(600) * 2 * np.pi / 24).astype(np.float32)
    frame = pd.read_csv(world / "data.csv").rename(columns={"sales": "target"}).assign(item_id="a")
    frame["timestamp"] = pd.to_datetime(frame["timestamp"])
    scope = {"series": np.stack([wave[:512], wave[88:]]), "short": wave[:100], "long": wave, "df": frame}
    if "tsm.merging(model" in text:
        scope["model"] = tsm.load_model(world / "path" / "to" / "model").model
    return scope


def run_page(page: Path, world: Path, here: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    monkeypatch.chdir(here)
    blocks = [b for b in BLOCKS if b.page == page and b.slow == slow and not b.skip]
    for block in blocks:
        if block.needs:
            pytest.importorskip(block.needs)
    scope = names_for_python(world, "".join(b.text for b in blocks))
    for block in blocks:
        try:
            run_block(block, scope, world, here)
        except Exception as error:
            raise AssertionError(f"{block.name}: {error}") from error


def run_block(block: Block, scope: dict[str, Any], world: Path, here: Path) -> None:
    if block.language == "python":
        run_python(block.text, scope, world, here)
    elif block.language in ("sh", "bash"):
        for words in block.commands():
            run_shell(words, world, here)


def with_blocks(slow: bool) -> list[Path]:
    """The pages with such blocks to run."""
    ran = {b.page for b in BLOCKS if b.slow == slow and not b.skip and b.language in ("sh", "bash", "python")}
    return [page for page in PAGES if page in ran]


@pytest.mark.parametrize("page", with_blocks(False), ids=_NAMES.get)
def test_page(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, world, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", with_blocks(True), ids=_NAMES.get)
def test_page_with_slow_blocks(
    page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(page, world, tmp_path, monkeypatch, slow=True)
