"""What makes the site of the pages: `make docs` runs it in an environment of its own; its parts are tested here."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.docs.blocks import DOCS, PAGES, ROOT
from tsmerge_export.cli.parser import export_parser
from tsmerge_export.settings import registry


def module(name: str) -> ModuleType:
    """A module of docs/_site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "_site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class _Files:
    """Files of the site, as the hooks ask for them."""

    def get_file_from_path(self, path: str) -> object:
        known = {page.relative_to(ROOT / "docs").as_posix() for page in DOCS}
        return path if path in known | {"plugins/onnxruntime/index.md"} else None


def rendered(source: str, text: str) -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    out: str = module("hooks").on_page_markdown(text, page=page, files=_Files())
    return out


def test_the_command_line_has_every_flag() -> None:
    page = module("command_line").reference()
    for action in export_parser()._actions:
        for flag in action.option_strings:
            assert f"`{flag}" in page, flag
    for command in (
        "validate",
        "inspect",
        "bench",
        "tune",
        "compress",
        "advise",
        "lowpass",
        "forecast",
        "ort",
        "families",
    ):
        assert f"\n## tsmerge {command}\n" in page
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) == 3 for row in rows)


def test_links_lead_to_pages_or_name_files(caplog: pytest.LogCaptureFixture) -> None:
    assert rendered("runtimes/cuda.md", "[gpu](../gpu.md#fast)") == "[gpu](../gpu.md#fast)"
    native = "[it](../../plugins/onnxruntime/README.md)"
    assert rendered("runtimes/cuda.md", native) == "[it](../plugins/onnxruntime/index.md)"
    assert rendered("plugins/onnxruntime/index.md", "[c](../../docs/gpu.md)") == "[c](../../gpu.md)"
    assert rendered("start.md", "[locks](../pyproject.toml)") == "locks (`pyproject.toml`)"
    assert caplog.text == ""
    rendered("start.md", "[locks](../nowhere.toml)")
    assert "docs/start.md links to nowhere.toml, which is not there" in caplog.text


def test_info_strings_and_roles_are_not_shown() -> None:
    assert rendered("start.md", '```sh skip="why" slow\nx\n```') == "```sh\nx\n```"
    html = module("hooks").on_page_content("of :class:<code>~tsmerge_export.merge.Merged</code>")
    assert html == "of <code>Merged</code>"


def test_every_page_is_in_the_navigation_once() -> None:
    named = re.findall(r": ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in DOCS}
    assert sorted(named) == sorted(pages)


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).exists()] == []
    for page in PAGES:
        folder: Path = page.parent
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            assert (folder / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", registry.built_in())
def test_the_table_of_methods_says_what_the_methods_say(name: str) -> None:
    method = registry.spec(name)
    text = (ROOT / "docs" / "methods.md").read_text()
    (row,) = re.findall(rf"^\| `{name}` \(.*\|$", text, re.MULTILINE)
    source, keeps, cost = (cell.strip() for cell in row.split("|")[1:4])
    assert (source, keeps, cost) == (f"`{name}` ({method.source})", method.keeps, method.cost)


def test_the_architecture_names_every_unit_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("```") : text.index("```", text.index("```") + 3)]
    named = {
        name
        for line in table.splitlines()
        for name in re.findall(r"^([\w, ]+)/ ", line)
        for name in name.split(", ")
    }
    units = {path.parent.name for path in (ROOT / "tsmerge_export").glob("*/__init__.py")}
    assert units - named - {"demo"} == set()
    assert {name for name in named - units if not (ROOT / "tsmerge_export" / f"{name}.py").exists()} == {
        "plugins"
    }


def test_a_warning_is_an_error_and_is_shown() -> None:
    """``--quiet`` would count no warnings, and so pass."""
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "mkdocs build" in line)
    assert line.endswith(" mkdocs build --strict")
