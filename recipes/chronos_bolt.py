"""From a Chronos-Bolt checkpoint to a verified bundle, and a forecast through it.

python recipes/chronos_bolt.py                              # the trained nano model that ships
python recipes/chronos_bolt.py amazon/chronos-bolt-small --ratio 1/4 -o bolt-small
"""

from __future__ import annotations

import numpy as np
from common import arguments, export

import tsmerge_export as tsm
from tsmerge_export import demo


def main() -> None:
    args = arguments(__doc__ or "", demo.CHRONOS_BOLT, "1/10")
    bundle = export(args)
    session = tsm.load(bundle.path)
    series = np.sin(np.arange(500) * 2 * np.pi / 24)[None].astype(np.float32)
    quantiles = session.run({"context": series})["quantiles"]
    print(f"bundle: {args.output}; quantiles of one series: {list(quantiles.shape)} [batch, levels, horizon]")


if __name__ == "__main__":
    main()
