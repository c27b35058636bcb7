"""Flags of a merge setting."""

from __future__ import annotations

import argparse

from tsmerge_export.cli.readers import layers, whole


def add_merging(parser: argparse.ArgumentParser) -> None:
    """The flags of a merge setting."""
    group = parser.add_argument_group("merging")
    group.add_argument(
        "--merge",
        metavar="METHOD",
        help="local, global, dynamic, pitome, ssm or none; default: local, or none where the family advises against it",
    )
    group.add_argument("--k", metavar="K", help="neighbourhood: 1, 2, ... or global; default: 1")
    group.add_argument(
        "--ratio",
        metavar="R",
        help="share of tokens to remove: 1/4, 0.25 or 25%%, or one for each layer: 1/2,1/4; default: auto, what the "
        "model's family says is safe",
    )
    group.add_argument(
        "--r", metavar="N", help="number of tokens to remove, or one for each layer, instead of --ratio"
    )
    group.add_argument(
        "--schedule",
        metavar="HOW",
        help="constant (default), or linear: twice the amount down to nothing by depth",
    )
    group.add_argument(
        "--threshold",
        metavar="S",
        help="dynamic: merge tokens more alike than this, -1 to 1, or one for each layer; default: 0.9",
    )
    group.add_argument(
        "--similarity",
        metavar="HOW",
        help="local, global, dynamic: cosine (default), l2 or dot; all from -1 to 1",
    )
    group.add_argument(
        "--margin",
        metavar="M",
        help="pitome: cosine from which tokens are alike, or one for each layer; default: 0.9 falling by depth",
    )
    group.add_argument("--alpha", metavar="A", help="pitome: weight of tokens that are not alike; default: 1")
    group.add_argument("--energy", metavar="HOW", help="pitome: elu (default) or gaussian")
    group.add_argument(
        "--prune-share",
        metavar="Q",
        help="ssm: share of the removed tokens that is pruned, not merged, 0 to 1; default: 1/2",
    )
    group.add_argument(
        "--residual-prune-share",
        metavar="Q",
        help="ssm with --metric hidden: the same for the residual; --prune-share is then for the hidden states",
    )
    group.add_argument("--min-tokens", type=whole(0), metavar="N", help="leave at least so many; default: 4")
    group.add_argument("--layers", type=layers, metavar="I,J,...", help="layers to merge in; default: all")
    group.add_argument("--positions", metavar="HOW", help="gather (true distances, default) or compact")
    group.add_argument(
        "--causal",
        action="store_true",
        default=None,
        help="local or dynamic with --k 1, for decoders: no slot is read from a later token when tokens are unmerged",
    )
    group.add_argument(
        "--metric",
        metavar="WHAT",
        help="what is compared: x (the tokens, default), key (attention keys) or hidden (of a state-space block)",
    )
    group.add_argument(
        "--prop-attn",
        action="store_true",
        default=None,
        help="proportional attention: a merged token counts as often as its size",
    )
