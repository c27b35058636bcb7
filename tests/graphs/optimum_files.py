"""Writes files with Hugging Face's optimum, from tiny models with random weights; runs in an environment of its own.

``python tests/graphs/optimum_files.py DIR`` writes ``DIR/<name>.onnx``. See ``make test-optimum``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers as hf
from optimum.exporters.onnx import main_export

_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
_AUDIO = {"conv_dim": (16, 16), "conv_stride": (4, 2), "conv_kernel": (8, 3), "num_conv_pos_embeddings": 8}
#: name -> (model, optimum's task)
MODELS: dict[str, tuple[Callable[[], hf.PreTrainedModel], str]] = {
    "bert": (
        lambda: hf.BertModel(hf.BertConfig(vocab_size=90, max_position_embeddings=128, **_SIZES)),
        "feature-extraction",
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(image_size=32, patch_size=4, **_SIZES)),
        "image-classification",
    ),
    "llama": (
        lambda: hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=90, num_key_value_heads=2, **_SIZES)),
        "text-generation",
    ),
    "wav2vec2": (
        lambda: hf.Wav2Vec2Model(hf.Wav2Vec2Config(num_conv_pos_embedding_groups=2, **_AUDIO, **_SIZES)),
        "feature-extraction",
    ),
}


def main(folder: Path) -> None:
    """Export every model as optimum-cli does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, task) in MODELS.items():
        torch.manual_seed(5)
        model = make().eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if weight.dim() > 1 and "conv" not in key:
                    weight.normal_(0, weight.shape[-1] ** -0.5 * 1.3)
        with TemporaryDirectory() as scratch:
            model.save_pretrained(Path(scratch) / "model")
            main_export(str(Path(scratch) / "model"), Path(scratch) / "onnx", task=task, do_validation=False)
            (Path(scratch) / "onnx" / "model.onnx").replace(folder / f"{name}.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
