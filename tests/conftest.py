"""Options and fixtures of all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

# Before numpy and PyTorch are imported, here and in the processes that tests start: the models are tiny, and threads
# that wait for each other by spinning take the cores from the other worker.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tables are as wide as the terminal: the same in whatever terminal the tests run.
os.environ["COLUMNS"] = "120"
# The portable functions are what most tests are about; those of the native operators name their library.
os.environ.pop("TSMERGE_ORT_PLUGIN", None)

import pytest

_SHARED = "TSMERGE_TESTS_EXPORTS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test fails the run (for CI)")


def pytest_configure(config: pytest.Config) -> None:
    """The process that starts the workers makes the folder that they share (see ``tests/exports.py``)."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="tsmerge-tests-exports-")
        os.environ[_SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session", autouse=True)
def _one_export_per_model() -> Iterator[None]:
    """The commands under test export as ``tests/exports.py`` does."""
    from tests import exports
    from tsmerge_export.compile import checkpoint_source

    assert exports.FOLDER == _SHARED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_source, "export_component", exports.export_component)
        yield


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if session.config.getoption("--no-skips") and skipped and exitstatus == 0:
        reporter.write_line(f"\n--no-skips: {skipped} tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
