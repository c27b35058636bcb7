"""Trains a small PatchTSMixer on the CPU and exports it without merging, for which it has no place.

python recipes/patchtsmixer.py                              # on the bundled sample series
python recipes/patchtsmixer.py path/to/checkpoint
"""

from __future__ import annotations

from common import arguments, export, point_loss, trained

CONFIG = {
    "architectures": ["PatchTSMixerForPrediction"], "model_type": "patchtsmixer", "num_input_channels": 1,
    "context_length": 336, "patch_length": 16, "patch_stride": 8, "num_layers": 4, "d_model": 32,
    "prediction_length": 48,
}  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "", None, "none")
    trained(args, "patchtsmixer", CONFIG, point_loss)
    bundle = export(args)
    print(f"bundle: {args.output}; {bundle.component('model').file}, unmerged")


if __name__ == "__main__":
    main()
