"""The files that `benchmarks/gpu.py` times: encoders of T5's sizes, merged and not, for any shape and for one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

#: d_model, d_ff, heads, layers.
MODELS = {"small": (512, 2048, 8, 6), "base": (768, 3072, 12, 12), "tiny": (64, 128, 2, 2)}
#: Those whose figures say something.
PUBLISHED = ("small", "base")
#: name -> (ratio, positions)
MERGES = {
    "unmerged": None,
    "N/4": ("1/4", "gather"),
    "N/2": ("1/2", "gather"),
    "N/2, compact": ("1/2", "compact"),
}
SIZES = "base:512:64,base:512:8,base:512:1,base:2048:8,small:512:256"
VOCABULARY = 4096
WEIGHTS = "weights.bin"
#: Smaller tensors stay in the graph.
LARGE = 1 << 16


def config(name: str) -> dict[str, Any]:
    """Of a Chronos-T5 checkpoint of that size."""
    width, inner, heads, layers = MODELS[name]
    return {
        "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": width, "d_ff": inner,
        "d_kv": 64, "num_heads": heads, "num_layers": layers, "num_decoder_layers": 1, "vocab_size": VOCABULARY,
        "feed_forward_proj": "relu", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
        "chronos_config": {
            "tokenizer_class": "MeanScaleUniformBins",
            "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0}, "n_tokens": VOCABULARY,
            "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1, "use_eos_token": True,
            "model_type": "seq2seq", "context_length": 511, "prediction_length": 64, "num_samples": 20,
            "temperature": 1.0, "top_k": 50, "top_p": 1.0,
        },
    }  # fmt: skip


def prepare(folder: Path, models: list[str], sizes: list[str], without_weights: bool) -> None:
    """Export every model and merge, also for the sizes alone; weights beside the graph, or left out."""
    import torch

    from tsmerge_export.backends.onnxruntime.static.form import static_form
    from tsmerge_export.compile.checkpoint_source import CheckpointSource
    from tsmerge_export.compile.compilation import Compilation
    from tsmerge_export.families import get
    from tsmerge_export.settings.config import MergeConfig

    family = get("chronos-t5")
    for name in models:
        torch.manual_seed(0)
        model = family.build(config(name)).eval()
        component = family.components(model)[0]
        compilation = Compilation(CheckpointSource.load(model), MergeConfig(method="none"))
        folder.mkdir(parents=True, exist_ok=True)
        compilation.plain(component, folder)
        for label, merge in MERGES.items():
            settings = (
                MergeConfig(method="none")
                if merge is None
                else MergeConfig(ratio=merge[0], positions=merge[1])
            )
            with tempfile.TemporaryDirectory() as scratch:
                built = compilation.merged(component, Path(scratch), settings)
                graph = onnx.load(built.merged)
            target = folder / name / str(list(MERGES).index(label))
            target.mkdir(parents=True, exist_ok=True)
            (target / WEIGHTS).unlink(missing_ok=True)
            forms = {
                one: static_form(
                    graph, dict.fromkeys((v.name for v in graph.graph.input), _shape(one)), label
                )
                for one in sizes
                if one.split(":")[0] == name
            }
            onnx.save_model(
                graph,
                target / "model.onnx",
                save_as_external_data=True,
                location=WEIGHTS,
                size_threshold=LARGE,
            )
            there = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.external_data}
            for one, form in forms.items():
                for tensor in form.graph.initializer:
                    if tensor.name in there:  # the same weights, in the same file
                        tensor.CopyFrom(there[tensor.name])
                onnx.save_model(form, static_file(target, one))
            if without_weights:
                (target / WEIGHTS).unlink()
        np.savez(folder / name / "example.npz", **component.example(model, 1, 511))


def _shape(size: str) -> tuple[int, int]:
    _, tokens, batch = size.split(":")
    return int(batch), int(tokens)


def static_file(folder: Path, size: str) -> Path:
    """Of a merge's folder, the file for one size alone."""
    return folder / "static-{}x{}.onnx".format(*_shape(size))


def fill(file: Path) -> None:
    """Random weights where a file's are missing; the same for every file with the same tensors."""
    target = file.parent / WEIGHTS
    if target.exists():
        return
    graph = onnx.load(file, load_external_data=False).graph
    with target.open("wb") as out:
        for tensor in sorted(
            (tensor for tensor in graph.initializer if tensor.external_data),
            key=lambda tensor: int(_entry(tensor, "offset")),
        ):
            seed = int.from_bytes(tensor.name.encode()[-8:].rjust(8, b"\0"), "little")
            values = np.random.default_rng(seed).standard_normal(tuple(tensor.dims), np.float32) * 0.05
            assert tensor.data_type == onnx.TensorProto.FLOAT
            out.seek(int(_entry(tensor, "offset")))
            out.write(values.tobytes())


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "0")


def feed(folder: Path, batch: int, tokens: int) -> dict[str, np.ndarray]:
    """Random tokens, none of them padding."""
    rng = np.random.default_rng(tokens)
    out = {}
    for name, value in np.load(folder / "example.npz").items():
        ids = "mask" not in name
        out[name] = (
            rng.integers(2, VOCABULARY, (batch, tokens)).astype(value.dtype)
            if ids
            else np.ones((batch, tokens), value.dtype)
        )
    return out
