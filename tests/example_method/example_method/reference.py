"""The algorithm in eager PyTorch: every second token may go into the one behind it, and the quietest pairs do."""

import torch

from tsmerge_export.methods.amount import AmountMethod
from tsmerge_export.methods.combine import identity
from tsmerge_export.methods.matching import Matching, merge_best
from tsmerge_export.methods.method import Evidence
from tsmerge_export.methods.similarity import RANK_INTO_PADDING, RANK_NAN, RANK_PADDING, SCORE_STEP


def ranks(metric, size, attributes):
    """``[B, P]`` of P pairs: minus the share of the loudest pair's sum, in whole steps; or a RANK_*."""
    first, last = int(attributes["protect_first"]), int(attributes["protect_last"])
    pairs = max(0, metric.shape[1] - first - last) // 2
    end = first + 2 * pairs
    loud = metric[:, first:end].float().abs().sum(-1)
    loud = loud[:, 0::2] + loud[:, 1::2] * attributes["later"]
    known = torch.where(loud.isfinite(), loud, torch.zeros_like(loud))
    largest = torch.cat([known.new_zeros((len(known), 1)), known], 1).amax(1, keepdim=True)
    share = torch.where(largest == 0, torch.zeros_like(loud), loud / largest)
    rank = torch.where(loud.isfinite(), -(share / SCORE_STEP).round() * SCORE_STEP, RANK_NAN)
    rank = rank.masked_fill(size[:, first + 1 : end : 2] == 0, RANK_INTO_PADDING)
    return rank.masked_fill(size[:, first:end:2] == 0, RANK_PADDING)


class QuietMethod(AmountMethod):
    name, op_type = "quiet", "QuietMerge"

    def attributes(self, config, place):
        return {**super().attributes(config, place), "later": config.at("later", place.turn)}

    def merge(self, x, metric, size, attributes):
        size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size.float()
        removed = self.removed(attributes, x.shape[1])
        if removed == 0:
            return identity(x, size)
        rank = ranks(metric.detach(), size, attributes)
        partner = torch.arange(rank.shape[1], device=x.device).expand_as(rank)
        how = Matching(protect_first=int(attributes["protect_first"]))
        return merge_best(x, size, rank, partner, removed, how)

    def evidence(self, x, metric, size, attributes):
        size = x.new_ones(x.shape[:2], dtype=torch.float32) if size is None else size
        rank = ranks(metric, size, attributes)
        return Evidence(rank=rank, gap=torch.full_like(rank, torch.inf))
