"""The locked environments are those that ``pyproject.toml`` asks for."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "requirements"
EXTRAS = {"cpu": ["export", "cpu"], "dev": ["export", "dev"], "tests": ["export", "dev", "plugin-tests"]}


def listed(name: str) -> list[str]:
    """Names in a file of one package a line."""
    lines = (FOLDER / name).read_text().splitlines()
    return [canonicalize_name(Requirement(line).name) for line in lines if line and line[0] != "#"]


def pins(name: str) -> Iterator[tuple[Requirement, str]]:
    """The requirements of a lock, each with what follows it up to the next."""
    text = (FOLDER / f"{name}.txt").read_text()
    for match in re.finditer(r"^(\w[^\\\n]*)\\\n((?: +.*\n)*)", text, re.MULTILINE):
        yield Requirement(match[1]), match[2]


def asked(extras: list[str]) -> list[Requirement]:
    """What ``pyproject.toml`` asks for; read as text, since Python 3.10 has no reader of TOML."""
    text = (ROOT / "pyproject.toml").read_text()
    found = []
    for key in ("dependencies", *extras):
        block = re.search(rf"^{key} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        assert block is not None, key
        found += [Requirement(item) for item in re.findall(r'"([^"]+)"', block[1])]
    return found


@pytest.mark.parametrize("name", EXTRAS)
def test_every_requirement_is_locked_by_hash(name: str) -> None:
    locked: dict[str, list[Requirement]] = {}
    for requirement, hashes in pins(name):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", hashes), requirement
        locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    left_out = listed("exclude.in")
    assert not set(left_out) & set(locked)
    for requirement in asked(EXTRAS[name]):
        if canonicalize_name(requirement.name) in left_out:
            continue
        found = locked.get(canonicalize_name(requirement.name), [])
        assert found, f"{requirement}: not in requirements/{name}.txt; run: make lock"
        for pin in found:
            (version,) = (one.version for one in pin.specifier)
            assert requirement.specifier.contains(version), f"{pin} is not {requirement}; run: make lock"
    assert set(listed("torch.in")) <= set(locked)


@pytest.mark.parametrize("name", ["cpu", "dev"])
def test_the_locks_agree(name: str) -> None:
    """An environment that ``make demo`` made is no other one after ``make test``."""
    whole = {(requirement.name, str(requirement.specifier)) for requirement, _ in pins("tests")}
    assert {(requirement.name, str(requirement.specifier)) for requirement, _ in pins(name)} <= whole


def test_the_environment_of_the_site_is_locked_by_hash() -> None:
    """It stands alone: nothing of pyproject.toml is in it."""
    locked = dict(pins("docs"))
    assert all("--hash=sha256:" in hashes for hashes in locked.values())
    names = {canonicalize_name(requirement.name) for requirement in locked}
    assert set(listed("docs.in")) <= names
    assert "torch" not in names and "onnxruntime" not in names


def test_uv_is_set_up_as_pip_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip itself lists, of a file with several mirrors and of a variable that wins over it."""
    source = importlib.util.spec_from_file_location("uv_as_pip", FOLDER / "uv_as_pip.py")
    assert source is not None and source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n    https://one/simple\n    https://two/simple\n"
        "find-links = /nowhere\ncert = /ca.pem\ntimeout = 9\n[install]\ntrusted-host = mirror\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    expected = {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://one/simple https://two/simple",
        "UV_FIND_LINKS": "/wheels /more",
        "UV_INSECURE_HOST": "mirror",
        "SSL_CERT_FILE": "/ca.pem",
    }
    # pip reads the system's files even so; what they alone say is none of the test's business.
    found = module.variables(listing.stdout)
    assert expected.items() <= found.items()
    assert (
        module.environment(listing.stdout, {"UV_DEFAULT_INDEX": "https://mine"})["UV_DEFAULT_INDEX"]
        == "https://mine"
    )
