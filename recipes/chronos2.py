"""From a Chronos-2 checkpoint to a verified bundle, and a forecast of a group through it.

python recipes/chronos2.py                      # a small model, trained on the sample series for three minutes at most
python recipes/chronos2.py amazon/chronos-2 --ratio 1/4 -o chronos-2
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import arguments, export, trained
from torch import Tensor

import tsmerge_export as tsm

CONFIG: dict[str, Any] = {
    "architectures": ["Chronos2Model"],
    "chronos_pipeline_class": "Chronos2Pipeline",
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_heads": 4,
    "num_layers": 4,
    "dropout_rate": 0.0,
    "initializer_factor": 0.3,
    "vocab_size": 2,
    "chronos_config": {
        "context_length": 512,
        "input_patch_size": 8,
        "input_patch_stride": 8,
        "output_patch_size": 8,
        "max_output_patches": 4,
        "quantiles": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        "use_reg_token": True,
        "use_arcsinh": True,
    },
}


def loss(model: Any, past: Tensor, future: Tensor) -> Tensor:
    """The model's own quantile loss."""
    patches = future.shape[1] // model.chronos_config.output_patch_size
    value: Tensor = model(context=past, future_target=future, num_output_patches=patches).loss
    return value


def main() -> None:
    args = arguments(__doc__ or "", None, "1/4")
    trained(args, "chronos-2", CONFIG, loss)
    bundle = export(args)
    session = tsm.load(bundle.path)
    patch = session.inputs[1].dims[3]
    # One group: two targets, and a covariate that is known for the two patches of the horizon.
    steps = np.arange(400)
    group = np.stack([np.sin(steps / 4), np.sin(steps / 4 + 1), np.cos(steps / 8)])[None].astype(np.float32)
    future = np.full((1, 3, 2, int(patch)), np.nan, np.float32)
    future[0, 2] = np.cos((400 + np.arange(2 * int(patch))) / 8).reshape(2, -1)
    feed = {"context": group, "future": future, "series_mask": np.ones((1, 3), np.float32)}
    quantiles = session.run(feed)["quantiles"]
    print(
        f"bundle: {args.output}; quantiles of one group: {list(quantiles.shape)} "
        "[groups, series, levels, horizon in patches, patch]"
    )


if __name__ == "__main__":
    main()
