"""From a TimesFM 2.5 checkpoint to a verified bundle, and a forecast through it.

python recipes/timesfm2_5.py                     # a small model, trained on the sample series for three minutes at most
python recipes/timesfm2_5.py google/timesfm-2.5-200m-transformers --ratio 1/10 -o timesfm-2.5
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import arguments, export, trained
from torch import Tensor

import tsmerge_export as tsm

CONFIG: dict[str, Any] = {
    "architectures": ["TimesFm2_5ModelForPrediction"],
    "model_type": "timesfm2_5",
    "patch_length": 8,
    "context_length": 512,
    "horizon_length": 32,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "output_quantile_len": 32,
}


def loss(model: Any, past: Tensor, future: Tensor) -> Tensor:
    """The model's own: squared error of the mean and quantile loss."""
    value: Tensor = model(
        list(past),
        future_values=future,
        forecast_context_len=past.shape[1],
        force_flip_invariance=False,
    ).loss
    return value


def main() -> None:
    args = arguments(__doc__ or "", None, "1/10")
    trained(args, "timesfm-2.5", CONFIG, loss)
    bundle = export(args)
    session = tsm.load(bundle.path)
    series = np.sin(np.arange(500) * 2 * np.pi / 24)[None].astype(np.float32)
    predictions = session.run({"context": series, "padding": np.zeros_like(series)})["predictions"]
    print(
        f"bundle: {args.output}; one series: {list(predictions.shape)} [batch, horizon, mean and quantiles]"
    )


if __name__ == "__main__":
    main()
