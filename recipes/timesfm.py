"""From a TimesFM 1 or 2 checkpoint to a verified bundle, and a forecast through it.

python recipes/timesfm.py                     # a small model, trained on the sample series for three minutes at most
python recipes/timesfm.py google/timesfm-2.0-500m-pytorch --ratio 1/10 -o timesfm
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import arguments, export, trained
from torch import Tensor

import tsmerge_export as tsm

CONFIG: dict[str, Any] = {
    "architectures": ["TimesFmModelForPrediction"],
    "model_type": "timesfm",
    "patch_length": 8,
    "context_length": 512,
    "horizon_length": 32,
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "head_dim": 16,
    "num_attention_heads": 4,
    "use_positional_embedding": True,
}


def loss(model: Any, past: Tensor, future: Tensor) -> Tensor:
    """The model's own: squared error of the mean and quantile loss."""
    value: Tensor = model(list(past), future_values=future, freq=[0] * len(past)).loss
    return value


def main() -> None:
    args = arguments(__doc__ or "", None, "1/10")
    trained(args, "timesfm", CONFIG, loss)
    bundle = export(args)
    session = tsm.load(bundle.path)
    series = np.sin(np.arange(500) * 2 * np.pi / 24)[None].astype(np.float32)
    predictions = session.run(
        {"context": series, "padding": np.zeros_like(series), "freq": np.zeros(1, np.int64)}
    )["predictions"]
    print(
        f"bundle: {args.output}; one series: {list(predictions.shape)} [batch, horizon, mean and quantiles]"
    )


if __name__ == "__main__":
    main()
