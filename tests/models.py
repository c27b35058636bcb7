"""Tiny models with random weights, and folders that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils.logging import disable_progress_bar

from tsmerge_export import families

#: Of the weights wherever a test does not care: the same model is exported once per run, see ``tests/exports.py``.
SEED = 3

_T5 = {
    "model_type": "t5",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "dropout_rate": 0.0,
    "feed_forward_proj": "relu",
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 32,
    "initializer_factor": 0.5,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}

BOLT: dict[str, Any] = {
    **_T5,
    "architectures": ["ChronosBoltModelForForecasting"],
    "chronos_pipeline_class": "ChronosBoltPipeline",
    "vocab_size": 2,
    "reg_token_id": 1,
    "chronos_config": {
        "context_length": 256,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "prediction_length": 16,
        "quantiles": [0.1, 0.5, 0.9],
        "use_reg_token": True,
    },
}

T5: dict[str, Any] = {
    **_T5,
    "architectures": ["T5ForConditionalGeneration"],
    "vocab_size": 64,
    "chronos_config": {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "context_length": 128,
        "prediction_length": 16,
        "n_tokens": 64,
        "n_special_tokens": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "use_eos_token": True,
        "model_type": "seq2seq",
        "num_samples": 4,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
    },
}

CHRONOS2: dict[str, Any] = {
    "architectures": ["Chronos2Model"],
    "chronos_pipeline_class": "Chronos2Pipeline",
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 2,
    "dropout_rate": 0.0,
    "feed_forward_proj": "relu",
    "initializer_factor": 0.5,
    "rope_theta": 10000.0,
    "reg_token_id": 1,
    "vocab_size": 2,
    "chronos_config": {
        "context_length": 256,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "output_patch_size": 8,
        "max_output_patches": 3,
        "quantiles": [0.1, 0.5, 0.9],
        "use_reg_token": True,
        "use_arcsinh": True,
        "time_encoding_scale": 256,
    },
}

MAMBA2: dict[str, Any] = {
    "model_type": "mamba2",
    "architectures": ["Mamba2ForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "num_heads": 4,
    "head_dim": 16,
    "state_size": 8,
    "n_groups": 1,
    "num_hidden_layers": 3,
    "chunk_size": 8,
    "series_config": {"low_limit": -8.0, "high_limit": 8.0, "context_length": 128},
}

MAMBA: dict[str, Any] = {
    **{name: MAMBA2[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "series_config")},
    "model_type": "mamba",
    "architectures": ["MambaForCausalLM"],
    "state_size": 8,
    "time_step_rank": 4,
}

PATCH_MAMBA: dict[str, Any] = {
    "architectures": ["PatchMambaForForecasting"],
    "patch_length": 4,
    "context_length": 256,
    "prediction_length": 8,
    "quantiles": [0.1, 0.5, 0.9],
    "backbone": {
        key: value for key, value in MAMBA2.items() if key not in ("architectures", "series_config")
    },
}

_TIMESFM: dict[str, Any] = {
    "patch_length": 8,
    "context_length": 256,
    "horizon_length": 16,
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "head_dim": 8,
    "num_attention_heads": 2,
    "quantiles": [0.1, 0.5, 0.9],
    "initializer_range": 0.2,
}

TIMESFM: dict[str, Any] = {
    **_TIMESFM,
    "architectures": ["TimesFmModelForPrediction"],
    "model_type": "timesfm",
    "use_positional_embedding": True,
}

TIMESFM2_5: dict[str, Any] = {
    **_TIMESFM,
    "architectures": ["TimesFm2_5ModelForPrediction"],
    "model_type": "timesfm2_5",
    "num_key_value_heads": 1,
    "output_quantile_len": 12,
    "decode_index": 2,
}

PATCHTST: dict[str, Any] = {
    "model_type": "patchtst",
    "architectures": ["PatchTSTForPrediction"],
    "num_input_channels": 3,
    "context_length": 96,
    "patch_length": 8,
    "patch_stride": 4,
    "num_hidden_layers": 3,
    "d_model": 16,
    "num_attention_heads": 4,
    "ffn_dim": 32,
    "prediction_length": 6,
    "pooling_type": None,
    "init_std": 0.3,
}

_LAGGED: dict[str, Any] = {
    "prediction_length": 4,
    "context_length": 48,
    "lags_sequence": [1, 2, 3, 12],
    "num_time_features": 2,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_layerdrop": 0.0,
    "init_std": 0.3,
}

TST: dict[str, Any] = {
    **_LAGGED,
    "model_type": "time_series_transformer",
    "architectures": ["TimeSeriesTransformerForPrediction"],
}

AUTOFORMER: dict[str, Any] = {
    **_LAGGED,
    "model_type": "autoformer",
    "architectures": ["AutoformerForPrediction"],
    "encoder_layers": 2,
    "autocorrelation_factor": 1,
    "label_length": 6,
    "moving_average": 5,
}

INFORMER: dict[str, Any] = {
    **_LAGGED,
    "model_type": "informer",
    "architectures": ["InformerForPrediction"],
    "attention_type": "full",
    "sampling_factor": 2,
}

PATCHTSMIXER: dict[str, Any] = {
    "model_type": "patchtsmixer",
    "architectures": ["PatchTSMixerForPrediction"],
    "num_input_channels": 3,
    "context_length": 64,
    "patch_length": 8,
    "patch_stride": 4,
    "num_layers": 2,
    "d_model": 8,
    "prediction_length": 6,
    "mode": "mix_channel",
    "init_std": 0.3,
}

CONFIGS = {
    "autoformer": AUTOFORMER,
    "chronos-2": CHRONOS2,
    "chronos-bolt": BOLT,
    "chronos-t5": T5,
    "informer": INFORMER,
    "mamba": MAMBA,
    "mamba2": MAMBA2,
    "patch-mamba": PATCH_MAMBA,
    "patchtsmixer": PATCHTSMIXER,
    "patchtst": PATCHTST,
    "time-series-transformer": TST,
    "timesfm": TIMESFM,
    "timesfm-2.5": TIMESFM2_5,
}


def tiny(family: str, seed: int = SEED, config: dict[str, Any] | None = None) -> nn.Module:
    """A tiny random model of a family: of :data:`CONFIGS`, or of another config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = families.get(family).build(CONFIGS[family] if config is None else config).eval()
        if family.startswith("timesfm"):
            # They start at 0, and a flat patch is a token of nothing but them: without, of rounding alone, which the
            # norm blows up to the size of any other token.
            for name, bias in model.named_parameters():
                if name.endswith(".bias"):
                    bias.data.normal_(0, 0.1)
        for name, buffer in model.named_buffers():
            # Fresh statistics of a batch normalisation would make it the identity.
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.5)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
        return model


def tiny_folder(path: Path, family: str = "chronos-bolt", seed: int = SEED, **options: Any) -> Path:
    """Save a tiny model in Hugging Face format; ``options`` go to ``save_pretrained``."""
    disable_progress_bar()
    tiny(family, seed).save_pretrained(path, **options)  # type: ignore[operator]
    return path
