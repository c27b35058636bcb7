"""Trains a small Autoformer on the CPU and exports it without merging, which it has no place for.

python recipes/autoformer.py                              # on the bundled sample series
python recipes/autoformer.py path/to/checkpoint
"""

from __future__ import annotations

from common import LAGGED, arguments, export, lagged_loss, trained

CONFIG = {
    **LAGGED,
    "architectures": ["AutoformerForPrediction"],
    "model_type": "autoformer",
    "label_length": 24,
    "moving_average": 25,
}


def main() -> None:
    args = arguments(__doc__ or "", None, "none")
    trained(args, "autoformer", CONFIG, lagged_loss)
    bundle = export(args)
    print(f"bundle: {args.output}; {bundle.component('encoder').file}, unmerged")


if __name__ == "__main__":
    main()
