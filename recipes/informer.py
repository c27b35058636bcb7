"""Trains a small Informer on the CPU, exports encoder (merged) and decoder, and prints the verdicts.

python recipes/informer.py                              # on the bundled sample series, full attention
python recipes/informer.py --attention prob             # ProbSparse: tokens merge in the last layer only
python recipes/informer.py path/to/checkpoint --ratio 1/4
"""

from __future__ import annotations

from common import LAGGED, arguments, export, lagged_loss, trained


def main() -> None:
    args = arguments(__doc__ or "", None, "1/10", attention=("full", "prob"))
    config = {
        **LAGGED,
        "architectures": ["InformerForPrediction"],
        "model_type": "informer",
        "attention_type": args.attention,
    }
    trained(args, "informer", config, lagged_loss)
    bundle = export(args)
    print(f"bundle: {args.output}; {bundle.component('encoder').file} with merged states for the decoder")


if __name__ == "__main__":
    main()
