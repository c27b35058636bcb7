"""Options and fixtures of all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Before numpy and PyTorch are imported, here and in the processes that tests start: the models are tiny, and threads
# that wait for each other by spinning take the cores from the other worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables are as wide as the terminal: the same in whatever terminal the tests run.
os.environ["COLUMNS"] = "120"
# The portable functions are what most tests are about, also where a wheel of native operators is installed; those of
# the operators name their library.
os.environ["TSMERGE_ORT_PLUGIN"] = "none"

import pytest

_SHARED = "TSMERGE_TESTS_EXPORTS"
#: Files of 25 CPU-seconds and more: first (see ``make test``), so that no worker is left with one of them at the end.
LONGEST = (
    "compile/test_artefacts.py",
    "graphs/test_export.py",
    "plugins/test_native.py",
    "ops/test_runtimes.py",
    "forecast/test_alone.py",
    "families/test_state_space.py",
    "families/test_lagged.py",
    "families/test_patchtst.py",
    "cli/test_signals.py",
    "methods/test_methods.py",
    "ops/test_methods.py",
    "backends/tensorrt_rtx/test_tensorrt_rtx.py",
    "plugins/test_plugin.py",
    "report/html/test_page.py",
    "docs/test_blocks.py",
    "families/test_runtimes.py",
    "families/test_chronos2.py",
    "tools/bench/test_compare.py",
    "tools/tune/test_search.py",
    "backends/openvino/test_openvino.py",
    "plugins/test_kernels.py",
    "plugins/test_native_cuda.py",
    "plugins/test_wheels.py",
    "cli/test_commands.py",
    "cli/test_distill.py",
    "forecast/test_exactness.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run (for CI)")


def pytest_configure(config: pytest.Config) -> None:
    """The process that starts the workers makes the folder that they share (see ``tests/exports.py``)."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="tsmerge-tests-exports-")
        os.environ[_SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all others in the order of their names."""
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def _one_export_per_model() -> Iterator[None]:
    """The commands under test export as ``tests/exports.py`` does."""
    from tests import exports
    from tsmerge_export.compile import checkpoint_source

    assert exports.FOLDER == _SHARED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_source, "export_component", exports.export_component)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_registry() -> Iterator[None]:
    """PyTorch's exporter reads its translations anew for every model: half a second, of one that takes two."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another version keeps them elsewhere: then it takes as long as it takes
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if session.config.getoption("--no-skips") and skipped and exitstatus == 0:
        reporter.write_line(f"\n--no-skips: {skipped} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
