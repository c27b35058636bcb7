"""From a Chronos (T5) checkpoint to a verified bundle of its encoder, and a run of it.

    python recipes/chronos_t5.py                                # the trained nano model that ships
    python recipes/chronos_t5.py amazon/chronos-t5-small --ratio 1/4 -o t5-small

The decoder is not exported yet: the merge cost is that of the exported encoder with the original decoder.
"""

from __future__ import annotations

import numpy as np
from common import arguments, export

import tsmerge_export as tsm
from tsmerge_export import demo


def main() -> None:
    args = arguments(__doc__ or "", demo.CHRONOS_T5, "1/10")
    bundle = export(args)
    session = tsm.load(bundle.path)
    ids = np.full((1, 401), 10, np.int64)
    ids[0, -1] = 1  # EOS
    outputs = session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    states, mask = outputs["last_hidden_state"], outputs["encoder_mask"]
    print(
        f"bundle: {args.output}; {ids.shape[1]} tokens in, {states.shape[1]} out, {int(mask.sum())} of them real"
    )


if __name__ == "__main__":
    main()
