"""Trains a small PatchTST on the CPU, exports it with merging, and forecasts with the bundle.

python recipes/patchtst.py                              # on the bundled sample series, about three minutes
python recipes/patchtst.py --data ETTh1.csv --minutes 10 -o build/patchtst
python recipes/patchtst.py path/to/checkpoint --ratio 1/4
"""

from __future__ import annotations

from common import arguments, export, point_loss, trained

import tsmerge_export as tsm
from tsmerge_export import families

CONFIG = {
    "architectures": ["PatchTSTForPrediction"], "model_type": "patchtst", "num_input_channels": 1,
    "context_length": 336, "patch_length": 16, "patch_stride": 8, "num_hidden_layers": 3, "d_model": 64,
    "num_attention_heads": 4, "ffn_dim": 128, "pooling_type": None, "prediction_length": 48, "head_dropout": 0.1,
}  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "", None, "1/10")
    trained(args, "patchtst", CONFIG, point_loss)
    bundle = export(args)
    component = bundle.component("model")
    session = tsm.load(bundle.path)
    loaded = tsm.load_model(args.model)
    family = families.get(loaded.family)
    inputs = family.components(loaded.model)[0].example(loaded.model, 2, 500)
    found = {name: list(value.shape) for name, value in session.run(inputs).items()}
    print(f"bundle: {args.output}; {component.file} on two series: {found}")


if __name__ == "__main__":
    main()
