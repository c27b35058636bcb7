"""Steps within a budget on a tiny model, the record, the page, the command, and what is refused."""

from __future__ import annotations

import gzip
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tsmerge_export as tsm
from tests.models import tiny_folder
from tests.quick import quick_verdicts
from tests.report.html.reading import read
from tests.tools.searches import FAST, table
from tsmerge_export import typed
from tsmerge_export.bundle.compression import ORIGINAL, Compression, StepEntry, TriedDegree
from tsmerge_export.cli import main
from tsmerge_export.cli.commands import merge_config
from tsmerge_export.cli.parser import tsmerge_parser
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.console.progress import NoProgress
from tsmerge_export.errors import UsageError
from tsmerge_export.families.base import Run
from tsmerge_export.report.compression import compression_table, words
from tsmerge_export.report.html.compression import command, compression_section
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.tools.compress import compress as subject
from tsmerge_export.tools.compress.compress import SHARES, VALUES, Wanted, compress, sizes, strongest
from tsmerge_export.tools.compress.output import record_of
from tsmerge_export.tools.distill.forecasts import merged_run
from tsmerge_export.tools.tune.contender import split
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.data import rolling_windows
from tsmerge_export.verify.quality import increase
from tsmerge_export.verify.speed import Speedup
from tsmerge_export.verify.window_errors import Forecasts, next_to_nothing

HALF = MergeConfig(ratio="1/2")
#: By precision, what the loss is multiplied by.
LOW = {"fp32": 1.0, "int8-weights": 1.001, "int8": 1.002, "int4-weights": 9.0}
Capture = pytest.CaptureFixture[str]


class Loaded:
    """A contender without files: the eager model of a checkpoint, and made-up losses of precisions."""

    def __init__(self, path: Path) -> None:
        self.name, self.data, self.folder, self.path = str(path), "t", path.parent, path
        self.source = CheckpointSource.load(str(path))
        self.component, self.checks, self.trained = self.source.components[0], Checks(threads=1), None
        seen = split(table())
        self.validation = rolling_windows(seen, 96, self.source.horizon, limit=6)
        self.test = rolling_windows(table(), 96, self.source.horizon, limit=6)

    def run_of(self, merge: MergeConfig) -> Run:
        return merged_run(self.component, self.source.model, merge)

    def errors(self, merge: MergeConfig, windows: Any, kind: str = "fp32") -> dict[str, Any]:
        run = self.run_of(merge)
        found = Forecasts(self.source.of_family, self.source.model, run).errors(windows)
        return {name: LOW[kind] * values for name, values in found.items()}

    def least(self, metric: str, windows: Any) -> Any:
        return next_to_nothing(metric, windows)

    def call(self, merge: MergeConfig, kind: str = "fp32") -> Callable[[], object]:
        return lambda: None

    def files(self, merge: MergeConfig, kind: str, folder: Path) -> list[Path]:
        return [self.path / "model.safetensors"]


def test_the_strongest_within_is_found_by_halving() -> None:
    for length in range(1, 9):
        for good in range(length + 1):
            asked: list[int] = []

            def within(degree: int, good: int = good, asked: list[int] = asked) -> bool:
                asked.append(degree)
                return degree < good

            assert strongest(range(length), within) == (good - 1 if good else None)
            assert len(asked) == len(set(asked)) <= 4


def test_every_step_goes_as_far_as_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    always = Speedup(1.5, 1.4, 1.6, 5)
    monkeypatch.setattr(subject, "in_turns", lambda *calls, **_: calls)
    monkeypatch.setattr(subject, "speedup_of", lambda *_: always)
    base: Any = Loaded(tiny_folder(tmp_path / "tiny"))
    made: list[Any] = []

    def prepared(path: Path) -> Any:
        made.append(Loaded(path))
        return made[-1]

    before = {name: value.clone() for name, value in base.source.model.state_dict().items()}
    wanted = Wanted(max_increase=2.0, metric="mse")
    found = compress(base, HALF, wanted, prepared, NoProgress())
    assert all(torch.equal(value, before[name]) for name, value in base.source.model.state_dict().items())
    original, *steps = found.steps
    assert (original.step, original.speedup, original.bytes) == (
        ORIGINAL,
        1.0,
        sizes([base.path / "model.safetensors"])[0],
    )
    assert [step.step for step in steps] == ["prune", "cluster", "quantise"]
    assert found.precision == steps[2].degree == "int8"
    reference = base.errors(HALF, base.validation)["mse"]
    least = base.least("mse", base.validation)
    for number, (step, stage, kind) in enumerate(
        zip(steps, [*made, made[-1]], ["fp32", "fp32", "int8"], strict=True)
    ):
        moved = increase(stage.errors(HALF, base.validation, kind)["mse"], reference, least)
        assert step.increase_percent == pytest.approx(moved.median, rel=1e-3, abs=1e-3)
        assert step.upper_percent == pytest.approx(moved.upper, rel=1e-3, abs=1e-3)
        assert moved.upper <= 2.0 * (number + 1) / 3
        tested = increase(stage.errors(HALF, base.test, kind)["mse"], base.errors(HALF, base.test)["mse"])
        assert step.test_percent == pytest.approx(tested.median, rel=1e-3, abs=1e-3)
        assert step.speedup == 1.5
    # What was chosen is what the weights are, and the next stronger degree was tried and was beyond.
    tried = {(one.step, one.degree): one.upper_percent for one in found.tried}
    zeros = int(steps[0].degree.split()[0]) / 100  # type: ignore[union-attr]
    values = int(steps[1].degree.split()[0])  # type: ignore[union-attr]
    pruned, clustered = (
        [w for n, w in one.source.model.named_parameters() if w.dim() == 2 and bool((w == 0).any())]
        for one in made
    )
    assert len(pruned) == len(clustered) > 0
    total = sum(w.numel() for w in pruned)
    assert sum(int((w == 0).sum()) for w in pruned) / total == pytest.approx(zeros, abs=0.01)
    assert max(len(torch.unique(w)) for w in clustered) <= values
    for (first, second), chosen, name in (
        ((SHARES, 2 / 3), zeros, "prune"),
        ((VALUES, 4 / 3), values, "cluster"),
    ):
        stronger = first[first.index(chosen) + 1 :][:1]  # type: ignore[arg-type]
        for degree in stronger:
            assert tried[name, subject.words_of(name, degree)] > second
    assert tried["quantise", "int4-weights"] > 2
    state = made[-1].source.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.model.state_dict().items())

    nothing = compress(
        base, HALF, Wanted(("prune", "quantise"), -1.0, "mse", ("int8",)), prepared, NoProgress()
    )
    assert not nothing.smaller and nothing.precision == "fp32" and len(made) == 2
    assert [step.left_out for step in nothing.steps] == [False, True, True]
    record = record_of(
        nothing, base, HALF, wanted, data=None, table=(), batch=8, windows=6, checkpoint="c", output="o"
    )
    assert record.checkpoint is None
    assert words(record)[0].startswith("not compressed: no step keeps the mse within 2 %")


def test_sizes_are_those_of_gzip(tmp_path: Path) -> None:
    content = [b"a" * 5000, bytes(range(256)) * 9]
    for number, part in enumerate(content):
        (tmp_path / str(number)).write_bytes(part)
    packed = sum(len(gzip.compress(part, 9)) for part in content)
    assert sizes(tmp_path / str(number) for number in range(2)) == (sum(map(len, content)), packed)


def test_what_is_wanted() -> None:
    assert Wanted(("quantise", "prune"), kinds=("int4-weights", "int8")) == Wanted(
        ("prune", "quantise"), kinds=("int8", "int4-weights")
    )
    for wrong, said in (
        ({"steps": ("shrink",)}, "--steps shrink: choose from prune, cluster, quantise"),
        ({"steps": ()}, "--steps names none"),
        (
            {"kinds": ("bf16",)},
            "--precision bf16: weights are quantised to int8, int8-static, int8-weights, int4",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            Wanted(**wrong)  # type: ignore[arg-type]


def made_up() -> Compression:
    size = {"bytes": 1_000_000, "gzip_bytes": 900_000}
    return Compression(
        source="my <model>", merge=HALF.to_dict(), metric="wql", max_increase_percent=3.0,
        asked=("prune", "cluster", "quantise"), kinds=("int8", "int4-weights"), data="d.csv", table=("--sep", "tab"),
        windows=8, context=128, batch=4, threads=1, checkpoint="small-checkpoint", output="small",
        steps=(
            StepEntry(ORIGINAL, speedup=1.0, **size),
            StepEntry("prune", "50 % zeros", 1_000_000, 500_000, 1.01, 0.9, 1.1, 0.5, 0.9, 0.6, 0.1, 1.0, "a", 2.0),
            StepEntry("cluster"),
            StepEntry("quantise", "int8", 250_000, 100_000, 1.5, 1.4, 1.6, 1.5, 2.5, 4.5, 3.1, 5.0, "b", 7.0),
        ),
        tried=(TriedDegree("prune", "50 % zeros", 0.9), TriedDegree("prune", "90 % zeros"),
               TriedDegree("quantise", "int8", 2.5)),
        checkpoint_bytes=2_000_000, checkpoint_gzip_bytes=400_000, original_bytes=2_000_000,
        original_gzip_bytes=1_800_000,
    )  # fmt: skip


def test_the_page_has_the_table_a_picture_and_the_command() -> None:
    found = made_up()
    assert typed.read(Compression, json.loads(json.dumps(typed.plain(found))), "report.json") == found
    rows = compression_table(found)[1]
    assert rows[1] == (
        "prune",
        "50 % zeros",
        "1.00",
        "0.50",
        "1.01 (0.90 to 1.10)",
        "+0.5 %",
        "+0.9 %",
        "+0.6 % (+0.1 to +1.0)",
    )
    assert rows[2][1] == "left out: beyond the budget"
    page = str(compression_section(found))
    text = " ".join(read(page).text.split())
    for said in (
        "4.0 times smaller as it is, 10.0 times with gzip (the original with gzip: 1.1)",
        "Worst column of the test part: 'b', +7.0 %",
        "no call faster",
        "rises by more than the 3 % that validation promised",
        "weights of small-checkpoint: 2.00 MB, with gzip 0.40",
        "90 % zeros at most -",
    ):
        assert said.lower() in text.lower(), said
    assert page.count("<circle") == 6 + 2 and "my <model>" not in page
    asked = tsmerge_parser().parse_args(command(found)[1:])
    assert merge_config(asked) == HALF
    wanted = {
        "model": "my <model>", "data": "d.csv", "max_increase": 3.0, "precision": ("int8", "int4-weights"),
        "length": 128, "windows": 8, "batch": 4, "threads": 1, "output": "small", "sep": "\t",
    }  # fmt: skip
    assert {name: getattr(asked, name) for name in wanted} == wanted
    assert compression_section(None) == ""


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--steps", "shrink"], 2, "--steps shrink: choose from prune, cluster, quantise"),
        (["--steps", ","], 2, "names no step"),
        (["--precision", "fp16"], 2, "--precision fp16: weights are quantised to"),
        (
            ["--steps", "prune", "--precision", "int8"],
            2,
            "--precision has no effect without the step quantise",
        ),
        (["--windows", "4"], 2, "--windows 4: a bound of 90 % takes at least 5"),
        (["--ratio", "runtime"], 2, "--ratio runtime is for exports"),
        (["--data", "none.csv"], 2, "--data none.csv: no such file"),
        (["-o", "tiny"], 2, "exists already"),
        (["-o", "taken"], 2, "taken-checkpoint: exists already"),
        (["-o", "taken/"], 2, "taken-checkpoint: exists already"),
        (["--max-increase", "little"], 2, "is not a share such as 3%"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    flags: list[str], code: int, said: str, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken-checkpoint").mkdir()
    for name in ("compression.json", "config.json"):
        Path("taken-checkpoint", name).write_text("{}")
    monkeypatch.setattr("tsmerge_export.tools.tune.contender.prepare", None)
    before = sorted(Path().rglob("*"))
    assert main(["compress", "tiny", *FAST, *flags]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.strip().count("\n") == 0
    assert sorted(Path().rglob("*")) == before


def test_columns_of_no_table(folder: Path, capsys: Capture) -> None:
    assert main(["compress", "tiny", "--column", "a"]) == 2
    assert "--column names columns of --data; give the file too" in capsys.readouterr().err


def test_a_file_has_no_weights_of_a_model(folder: Path, capsys: Capture) -> None:
    Path("x.onnx").write_bytes(b"")
    assert main(["compress", "x.onnx", *FAST]) == 3
    assert "x.onnx: a graph has no weights" in capsys.readouterr().err


@pytest.mark.slow
def test_command_writes_weights_and_a_bundle(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_verdicts(monkeypatch)
    flags = ["--max-increase", "50%", "--ratio", "1/4", "--json", "c.json", "-o", "small"]
    assert main(["compress", "tiny", *FAST, *flags]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "bundle: small" in out
        and "checkpoint: small-checkpoint" in out
        and "tried on validation: prune" in out
    )
    record = json.loads(Path("c.json").read_text())
    assert json.loads(Path("small-checkpoint/compression.json").read_text()) == record
    report = json.loads(Path("small/report.json").read_text())
    assert report["compression"] == record
    assert "How the weights were compressed" in Path("small/report.html").read_text()
    manifest = json.loads(Path("small/manifest.json").read_text())
    assert manifest["source"] == "small-checkpoint" and manifest["merge"]["ratio"] == "1/4"
    last = record["steps"][-1]
    assert manifest["precision"]["kind"] == last["degree"]
    # The files are those of the last row.
    assert Path("small/model.onnx").stat().st_size == last["bytes"]
    assert len(gzip.compress(Path("small/model.onnx").read_bytes(), 9)) == last["gzip_bytes"]
    weights = tsm.load_model("small-checkpoint").model
    share = int(record["steps"][1]["degree"].split()[0]) / 100
    zeros = sum(int((w == 0).sum()) for w in weights.parameters())
    assert zeros > 0.5 * share * sum(w.numel() for w in weights.parameters())
    asked = tsmerge_parser().parse_args(
        shlex.split(shlex.join(command(typed.read(Compression, record, "c"))))[1:]
    )
    assert (asked.model, asked.windows, asked.output) == ("tiny", 5, "small")
    assert main(["compress", "tiny", *FAST, *flags]) == 2
    assert "exists already" in capsys.readouterr().err
