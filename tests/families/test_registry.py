"""The registry: families of other packages, broken ones, the list of `tsmerge families`, hub ids and folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.utils.logging import disable_progress_bar

import tsmerge_export as tsm
from tests.cli.said import bundle
from tests.installed import forget_modules, install, install_example
from tests.models import CONFIGS
from tests.quick import quick_verdicts
from tests.report.html.command_lines import run_as_printed
from tsmerge_export import families, forecast
from tsmerge_export.cli import main, main_export
from tsmerge_export.errors import MissingDependencyError, TsmergeError, UnsupportedError, UsageError
from tsmerge_export.families import listing, plugins
from tsmerge_export.settings import entry_points

Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "example_family"
CONFIG = {
    "architectures": ["PointEncoderModel"],
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "vocab_size": 1,
    "horizon": 4,
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, the example among them."""
    install_example(tmp_path, plugins.GROUP, "example_family")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield tmp_path
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    entry_points.found.cache_clear()
    families.get.cache_clear()
    forget_modules("example_family")


@pytest.fixture
def model(site: Path) -> Path:
    """A folder with a tiny model of the example's family."""
    disable_progress_bar()
    torch.manual_seed(1)
    core: Any = families.get("point-encoder").build(CONFIG)
    core.save_pretrained(site / "tiny")
    return site / "tiny"


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "example_family" / "family.py").read_text().splitlines()) < 60


def test_a_family_of_another_package_is_exported_and_proved(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(model.parent)
    quick_verdicts(monkeypatch)
    np.savetxt("series.csv", np.sin(np.arange(300) / 4), header="a", comments="")
    assert main_export(["tiny", "--ratio", "1/4", "-o", "out", "--data", "series.csv", "--threads", "1"]) == 0
    assert "point-encoder: local" in capsys.readouterr().out
    manifest = tsm.Bundle.open("out").manifest
    assert manifest["family"] == "point-encoder"
    assert len(manifest["components"][0]["merges"]) == 2
    assert manifest["components"][0]["barriers"] == []
    series = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)
    loaded = tsm.load_model(model)
    with torch.no_grad(), tsm.merging(loaded.model, tsm.MergeConfig(ratio="1/4")) as run:
        want = loaded.model(torch.from_numpy(series))
        assert [step.removed for step in run.steps] == [10, 7]
    np.testing.assert_allclose(tsm.load("out").run({"context": series})["forecast"], want.numpy(), atol=1e-5)
    forecasts(loaded.model)
    assert main(["forecast", "out", "series.csv", "-h", "3", "-o", "out.csv", "--threads", "1"]) == 0
    points = tsm.pipeline("out", threads=1).predict(np.loadtxt("series.csv", skiprows=1), 3)[0, 0]
    np.testing.assert_allclose(np.loadtxt("out.csv", skiprows=1, delimiter=",", usecols=3), points, rtol=1e-5)


def forecasts(model: Any) -> None:
    """The forecaster of its package gives the model's own forecasts, series by series, whatever stands beside them."""
    series = [np.random.default_rng(n).normal(size=n).astype(np.float32) for n in (40, 9, 40)]
    pipeline = tsm.pipeline("out", threads=1)
    assert type(pipeline).__module__ == "example_family.forecast"
    got = pipeline.predict(series, 3)
    assert got.shape == (3, 1, 3)
    for one, row in zip(got, series, strict=True):
        with torch.no_grad(), tsm.merging(model, tsm.MergeConfig(ratio="1/4")):
            want = torch.sinh(model(torch.from_numpy(np.arcsinh(row))[None]))[:, :3].numpy()
        np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        (
            "x = 1 / 0\n",
            UsageError,
            "cannot be loaded: ZeroDivisionError: division by zero; mend broken_f:Made",
        ),
        ("import no_such_module\n", MissingDependencyError, "no_such_module is not installed"),
        (
            "class Made:\n    pass\n",
            UsageError,
            "broken_f:Made is no class of tsmerge_export.forecast.base.Forecaster",
        ),
        (
            None,
            UnsupportedError,
            "a bundle of other is no forecaster; supported are autoformer,.*, point-encoder$",
        ),
    ],
    ids=["raises", "absent", "other", "none"],
)
def test_a_broken_forecaster_is_one_line(code: str | None, kind: Any, match: str, site: Path) -> None:
    if code is not None:
        (site / "broken_f.py").write_text(code)
        install(site, forecast.GROUP, "broken_f", "other = broken_f:Made")
    _forget()
    bundle(site / "made", "other")
    with pytest.raises(kind, match=match) as caught:
        tsm.pipeline(site / "made")
    assert "\n" not in str(caught.value)
    assert code is None or str(caught.value).startswith("forecaster plug-in 'other' of broken")


@pytest.mark.slow
def test_the_commands_of_its_page_run_as_printed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(model.parent)
    np.savetxt("a series.csv", np.sin(np.arange(600) / 4), header="a", comments="")
    flags = ["--ratio", "1/4", "--data", "a series.csv", "--family", "point-encoder", "--threads", "1"]
    assert main_export(["tiny", *flags, "-o", "out"]) == 0
    made = tsm.Bundle.open("out").manifest
    ended = run_as_printed(Path("out"))
    assert set(ended) == {
        "export", "repeat the verdicts", "where it merges", "speed over batches", "find a better setting"
    }  # fmt: skip
    assert set(ended.values()) == {0}
    assert tsm.Bundle.open("out").manifest["components"] == made["components"]
    assert "point-encoder" in capsys.readouterr().out


def test_a_hub_id_takes_the_same_way(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model))
    assert tsm.load_model("someone/point-encoder").family == "point-encoder"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(TsmergeError, match="--trust-remote-code"):
        tsm.load_model("someone/point-encoder")
    assert tsm.load_model("someone/point-encoder", trust_remote_code=True).family == "point-encoder"


BROKEN = {
    "raises": ("x = 1 / 0\n", "broken_raises:Family", 2, "ZeroDivisionError"),
    "absent": ("import no_such_module\n", "broken_absent:Family", 4, "no_such_module is not installed"),
    "nothing": ("", "broken_nothing:Family", 2, "AttributeError"),
    "other": (
        "class Family:\n    pass\n",
        "broken_other:Family",
        2,
        "is no tsmerge_export.families.base.Family",
    ),
    "named": (
        "from example_family.family import PointEncoder as Family\n",
        "broken_named:Family",
        2,
        "calls itself",
    ),
    "abstract": (
        "from tsmerge_export.families.base import Family\n",
        "broken_abstract:Family",
        2,
        "TypeError",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plug_in_is_one_line(kind: str, site: Path, model: Path, capsys: Capture) -> None:
    code, entry, exit_code, words = BROKEN[kind]
    (site / f"broken_{kind}.py").write_text(code)
    install(site, plugins.GROUP, f"broken_{kind}", f"{kind} = {entry}")
    _forget()
    assert main_export([str(model), "--family", kind, "-o", str(site / "out")]) == exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"plug-in '{kind}' of broken_{kind} 1.0" in error.replace("broken-", "broken_")
    assert words in error
    assert tsm.load_model(model).family == "point-encoder"  # it is in nobody else's way
    assert main(["families"]) == 0
    out, warning = capsys.readouterr()
    assert f"{kind} (broken" in out
    assert warning.count("\n") == 1
    assert words in warning


def test_what_no_family_takes_names_the_broken_ones_too(site: Path, model: Path) -> None:
    (site / "broken_all.py").write_text("raise RuntimeError('first line\\nsecond line')\n")
    install(site, plugins.GROUP, "broken_all", "everything = broken_all:Family")
    _forget()
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["Unheard"]}))
    with pytest.raises(
        UnsupportedError, match=r"Unheard.*point-encoder.*RuntimeError: first line second line"
    ) as caught:
        tsm.load_model(model)
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name_and_the_name_of_a_built_in_family(site: Path) -> None:
    install(
        site,
        plugins.GROUP,
        "second",
        "point-encoder = example_family.family:PointEncoder\nchronos-bolt = example_family.family:PointEncoder",
    )
    _forget()
    with pytest.raises(TsmergeError, match="claims the same name"):
        families.get("point-encoder")
    assert type(families.get("chronos-bolt")).__name__ == "ChronosBolt"
    assert families.names().count("chronos-bolt") == 1


def test_the_list(site: Path, capsys: Capture) -> None:
    assert main(["families", "--json", str(site / "list.json")]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert "point-encoder (example" in out
    found = {entry["name"]: entry for entry in json.loads((site / "list.json").read_text())}
    assert set(found) == set(families.names())
    assert found["chronos-bolt"]["components"] == [{"name": "model", "what": "`context` -> `quantiles`"}]
    assert found["mamba2"]["unsupported"]
    assert all(entry["error"] is None for entry in found.values())


BUILT_IN = [name for name in families.names() if families.built_in(name)]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_family_has_a_card_its_row_and_its_page(name: str) -> None:
    entry = next(entry for entry in listing.entries() if entry.name == name)
    assert entry.card is not None
    assert f"| {' | '.join(entry.cells())} |" in (ROOT / "docs" / "families.md").read_text()
    assert (ROOT / "docs" / "families" / f"{name}.md").read_text().startswith(f"# {name}\n")


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_family_has_a_published_size_that_builds(name: str) -> None:
    family = families.get(name)
    assert family.published is not None
    assert family.matches(family.published.config)
    with torch.device("meta"):
        core = family.build(family.published.config)
    assert sum(p.numel() for p in core.parameters()) > 100_000


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_belongs_to_one_family(name: str) -> None:
    assert [other for other in BUILT_IN if families.get(other).matches(CONFIGS[name])] == [name]


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("patchtst", "PatchTSTForClassification"),
        ("patchtst", "PatchTSTForRegression"),
        ("patchtst", "PatchTSTForPretraining"),
        ("patchtst", "PatchTSTModel"),
        ("patchtsmixer", "PatchTSMixerForTimeSeriesClassification"),
        ("informer", "InformerModel"),
        ("timesfm", "TimesFmModel"),
    ],
)
def test_another_head_says_which_one_is_taken(family: str, head: str) -> None:
    taken = CONFIGS[family]["architectures"][0]
    config = {**CONFIGS[family], "architectures": [head]}
    words = f"describes {head}; of these models the family {family} takes {taken} alone.*onnx"
    with pytest.raises(UnsupportedError, match=words):
        families.detect(config)
    with pytest.raises(UnsupportedError, match=words):  # also where the family is named
        families.get(family).build(config)


def test_another_model_is_no_other_head() -> None:
    for named in ("T5ForSequenceClassification", "BertForMaskedLM", "PatchTSTishForX", 7):
        with pytest.raises(UnsupportedError, match="no supported family"):
            families.detect({"model_type": "any", "architectures": [named]})
