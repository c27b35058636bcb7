"""From a TimesFM 1 or 2 checkpoint to a verified bundle, and a forecast through it.

python recipes/timesfm.py                     # a small model, trained for a minute: right, but no good forecaster
python recipes/timesfm.py google/timesfm-2.0-500m-pytorch --ratio 1/10 -o timesfm
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, export
from short import short_trained
from torch import Tensor

import tsmerge_export as tsm

SMALL = Path("build/timesfm-small")
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


def loss(model: Any, contexts: Tensor, futures: Tensor) -> Tensor:
    """The model's own: squared error of the mean and quantile loss."""
    value: Tensor = model(list(contexts), future_values=futures, freq=[0] * len(contexts)).loss
    return value


def main() -> None:
    args = arguments(__doc__ or "", SMALL, "1/10")
    if args.model == str(SMALL):
        short_trained(SMALL, CONFIG, loss)
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
