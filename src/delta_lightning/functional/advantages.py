"""Statistics of groups of rewards, by scatter over group ids: no loop over groups."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape

TIE = 1e-6  # rewards closer than this to their group's mean are equal: rounding alone parts them


class GroupStatistics(NamedTuple):
    """Of the valid rows of each group, in ascending order of the P distinct group ids; float64.

    Attributes:
        index_B: which group each row belongs to, 0 .. P-1. count_P: valid rows. mean_P: 0 where there are none.
        deviations_B: reward - mean, 0 for invalid rows. variance_P: unbiased, 0 with fewer than two rows.
        tied_P: no reward differs from the mean by `TIE` or more: the group says nothing.
    """

    index_B: Tensor
    count_P: Tensor
    mean_P: Tensor
    deviations_B: Tensor
    variance_P: Tensor
    tied_P: Tensor


def group_statistics(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor) -> GroupStatistics:
    """Count, mean, variance and ties of each group's valid rewards."""
    check_same_shape(rewards_B=rewards_B, group_ids_B=group_ids_B, valid_B=valid_B)
    ids_P, index_B = torch.unique(group_ids_B, return_inverse=True)
    weight_B = valid_B.double()
    zeros_P = weight_B.new_zeros(len(ids_P))
    # An invalid row may carry any number, NaN too: it is replaced, not multiplied by zero.
    rewards_B = torch.where(valid_B, rewards_B.double(), 0.0)
    count_P = zeros_P.index_add(0, index_B, weight_B)
    mean_P = zeros_P.index_add(0, index_B, rewards_B) / count_P.clamp(min=1)
    deviations_B = (rewards_B - mean_P[index_B]) * weight_B
    variance_P = zeros_P.index_add(0, index_B, deviations_B.square()) / (count_P - 1).clamp(min=1)
    spread_P = zeros_P.scatter_reduce(0, index_B, deviations_B.abs(), reduce="amax")
    return GroupStatistics(index_B, count_P, mean_P, deviations_B, variance_P, spread_P < TIE)


@torch.no_grad()
def group_standardise(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor, *, eps: float = 1e-6) -> Tensor:
    """A = (R - mean) / (std + eps) within each group, std unbiased (n - 1); [B] in the dtype of the rewards.

    Exactly 0 for invalid rows, for groups with fewer than two valid rows and for groups whose rewards are all equal.
    """
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    # Fewer than two verdicts tie with themselves.
    scale_P = torch.where(group.tied_P, 0.0, 1 / (group.variance_P.sqrt() + eps))
    return (group.deviations_B * scale_P[group.index_B]).to(rewards_B.dtype)
