"""From a Chronos (T5) checkpoint to a verified bundle, and a forecast with it.

python recipes/chronos_t5.py                                # the trained nano model that ships
python recipes/chronos_t5.py amazon/chronos-t5-small --ratio 1/4 -o t5-small
"""

from __future__ import annotations

import numpy as np
from common import arguments, export

import tsmerge_export as tsm
from tsmerge_export import demo


def main() -> None:
    args = arguments(__doc__ or "", demo.CHRONOS_T5, "1/10")
    bundle = export(args)
    steps = np.arange(400, dtype=np.float32)
    series = np.sin(steps * 2 * np.pi / 24) + steps / 400
    quantiles, _ = tsm.pipeline(bundle.path).predict_quantiles(
        series, prediction_length=8, quantile_levels=[0.1, 0.5, 0.9]
    )
    print(f"bundle: {args.output}; median of the next 8 steps: {np.round(quantiles[0, :, 1], 2).tolist()}")


if __name__ == "__main__":
    main()
