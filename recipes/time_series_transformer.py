"""Trains a small Time Series Transformer on the CPU, exports encoder (merged) and decoder, and prints the verdicts.

python recipes/time_series_transformer.py                              # on the bundled sample series
python recipes/time_series_transformer.py path/to/checkpoint --ratio 1/4
"""

from __future__ import annotations

from common import LAGGED, arguments, export, lagged_loss, trained

CONFIG = {
    **LAGGED,
    "architectures": ["TimeSeriesTransformerForPrediction"],
    "model_type": "time_series_transformer",
}


def main() -> None:
    args = arguments(__doc__ or "", None, "1/10")
    trained(args, "time-series-transformer", CONFIG, lagged_loss)
    bundle = export(args)
    print(f"bundle: {args.output}; {bundle.component('encoder').file} with merged states for the decoder")


if __name__ == "__main__":
    main()
