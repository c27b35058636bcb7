"""Parity on a real family with random weights: the exporter, the rewriter and the operators behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from tsmerge_export import families
from tsmerge_export.compile.checkpoint_source import CheckpointSource
from tsmerge_export.compile.compilation import Compilation
from tsmerge_export.settings.config import MergeConfig
from tsmerge_export.verify import corpus, parity
from tsmerge_export.verify.built import Built
from tsmerge_export.verify.checks import Checks
from tsmerge_export.verify.parity import ParityReport

MERGE = MergeConfig(k=2, ratio="1/4", min_tokens=2)
CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 16, "d_ff": 32, "d_kv": 8, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1, "vocab_size": 64,
    "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    "chronos_config": {
        "context_length": 48, "prediction_length": 4, "n_tokens": 64, "n_special_tokens": 2, "pad_token_id": 0,
        "eos_token_id": 1, "use_eos_token": True, "model_type": "seq2seq", "num_samples": 2, "temperature": 1.0,
        "top_k": 5, "top_p": 1.0, "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -10.0, "high_limit": 10.0},
    },
}  # fmt: skip

Made = tuple[nn.Module, Built]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(0)
    family = families.get("chronos-t5")
    model = family.build(CONFIG)
    folder = tmp_path_factory.mktemp("t5")
    return model, Compilation(CheckpointSource.load(model), MERGE).merged(family.components(model)[0], folder)


def check(made: Made, path: Path | None = None, merge: MergeConfig = MERGE) -> ParityReport:
    model, built = made
    cases = [case for case in corpus.cases(48) if case.length > 4]
    family = families.get("chronos-t5")
    return parity.check(family, built.component, model, merge, path or built.merged, Checks(cases=cases))


def test_the_artefact_passes(made: Made) -> None:
    report = check(made)
    assert report.passed, report.failures
    assert report.to_dict()["max_rel"] < 1e-5
    # 62 bins and 48 steps: series repeat their tokens, so a few near ties are natural.
    assert report.to_dict()["decision_flips"] < 0.2 * report.to_dict()["rows"], [
        vars(c) for c in report.cases if c.flips
    ]


def test_one_weight_changed_by_one_per_cent_fails(made: Made, tmp_path: Path) -> None:
    proto = onnx.load(made[1].merged)
    # A weight of the last layer's feed-forward: no decision depends on it, so it must show in the values.
    weights = [w for w in proto.graph.initializer if list(w.dims) in ([32, 16], [16, 32])]
    assert weights
    values = numpy_helper.to_array(weights[-1]).copy()
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[at] *= 1.01
    weights[-1].CopyFrom(numpy_helper.from_array(values, weights[-1].name))
    onnx.save(proto, tmp_path / "m.onnx")
    report = check(made, tmp_path / "m.onnx")
    assert any("error" in failure for failure in report.failures), report.failures


@pytest.mark.parametrize("merge", [{"k": 1}, {"ratio": "1/5"}, {"method": "none"}, {"layers": (0,)}])
def test_other_settings_than_the_artefacts_fail(made: Made, merge: dict) -> None:
    settings = {"k": 2, "ratio": "1/4", "min_tokens": 2} | merge
    assert not check(made, merge=MergeConfig(**settings)).passed


def test_ties_resolved_the_other_way_round_fail(made: Made, tmp_path: Path) -> None:
    """The merge nodes see tokens with one feature turned: other decisions, far from any tie."""
    proto = onnx.load(made[1].merged)
    nodes = [
        i for i, node in enumerate(proto.graph.node) if node.domain == "tsmerge" and "Merge" in node.op_type
    ]
    node = proto.graph.node[nodes[0]]
    flip = np.ones(16, np.float32)
    flip[:8] = 1e-3
    proto.graph.initializer.append(numpy_helper.from_array(flip, "flip"))
    proto.graph.node.insert(nodes[0], onnx.helper.make_node("Mul", [node.input[1], "flip"], ["flipped"]))
    proto.graph.node[nodes[0] + 1].input[1] = "flipped"
    onnx.save(proto, tmp_path / "m.onnx")
    assert check(made, tmp_path / "m.onnx").to_dict()["kept_mismatches"] > 0
