"""Advantages from groups of rewards, by scatter over group ids: no loop over groups.

Every function takes `rewards_B`, `group_ids_B` and `valid_B`, accumulates in float64 and returns [B] in the dtype of the
rewards. Rows that are not valid get exactly 0 and enter no statistic. Rewards within `TIE` of their group's mean, and of a
weighted baseline, get exactly 0, where rounding would otherwise leave a residue and choose a sign: a group of equal rewards
does, and one with fewer than two valid rows, which have nothing to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

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


Deviation = Literal["unbiased", "population"]


def unbiased_std(group: GroupStatistics) -> Tensor:
    """Standard deviation with n - 1, [P]; what torch and most libraries call std."""
    return group.variance_P.sqrt()


def population_std(group: GroupStatistics) -> Tensor:
    """Standard deviation with n, [P]."""
    return (group.variance_P * (group.count_P - 1) / group.count_P.clamp(min=1)).clamp(min=0).sqrt()


STD: Mapping[str, Callable[[GroupStatistics], Tensor]] = {"unbiased": unbiased_std, "population": population_std}


def snapped_deviations(group: GroupStatistics) -> Tensor:
    """Reward - mean, [B] float64, exactly 0 where it is below `TIE`: everywhere in groups whose rewards are all equal."""
    return torch.where(group.deviations_B.abs() < TIE, 0.0, group.deviations_B)


@torch.no_grad()
def group_standardise(
    rewards_B: Tensor,
    group_ids_B: Tensor,
    valid_B: Tensor,
    *,
    eps: float = 1e-6,
    std: Callable[[GroupStatistics], Tensor] = unbiased_std,
) -> Tensor:
    """A = (R - mean) / (std + eps) within each group."""
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    # Fewer than two verdicts tie with themselves.
    scale_P = torch.where(group.tied_P, 0.0, 1 / (std(group) + eps))
    return (snapped_deviations(group) * scale_P[group.index_B]).to(rewards_B.dtype)


@torch.no_grad()
def group_centre(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor) -> Tensor:
    """A = R - mean within each group."""
    return snapped_deviations(group_statistics(rewards_B, group_ids_B, valid_B)).to(rewards_B.dtype)


@torch.no_grad()
def leave_one_out(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor) -> Tensor:
    """A = R - mean of the others = n / (n - 1) (R - mean) within each group."""
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    scale_P = group.count_P / (group.count_P - 1).clamp(min=1)
    return (snapped_deviations(group) * scale_P[group.index_B]).to(rewards_B.dtype)


@torch.no_grad()
def over_mean(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor, *, min_mean: float = TIE) -> Tensor:
    """A = (R - mean) / mean within each group; 0 in groups whose mean is below `min_mean`, which is above 0."""
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    scale_P = torch.where(group.mean_P >= min_mean, 1 / group.mean_P.clamp(min=min_mean), 0.0)
    return (snapped_deviations(group) * scale_P[group.index_B]).to(rewards_B.dtype)


@torch.no_grad()
def weighted_baseline(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor, weights_B: Tensor) -> Tensor:
    """A = R - sum(w R) / sum(w) within each group; the plain mean where no weight is above 0.

    Computed from deviations from the plain mean, so that large rewards do not cancel.
    """
    check_same_shape(rewards_B=rewards_B, weights_B=weights_B)
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    deviations_B, weights_B = snapped_deviations(group), weights_B.double() * valid_B
    zeros_P = torch.zeros_like(group.mean_P)
    total_P = zeros_P.index_add(0, group.index_B, weights_B)
    shift_P = zeros_P.index_add(0, group.index_B, weights_B * deviations_B)
    shift_P = torch.where(total_P > 0, shift_P / torch.where(total_P > 0, total_P, 1.0), 0.0)
    advantages_B = (deviations_B - shift_P[group.index_B]) * valid_B
    return torch.where(advantages_B.abs() < TIE, 0.0, advantages_B).to(rewards_B.dtype)


@torch.no_grad()
def best_margin(rewards_B: Tensor, group_ids_B: Tensor, valid_B: Tensor) -> Tensor:
    """A = best - second best for the one best row of each group, 0 for all others.

    Rows within `TIE` of the best tie with it: two bests leave no margin, and the whole group gets 0.
    """
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    deviations_B = snapped_deviations(group)
    lowest_P = torch.full_like(group.mean_P, -torch.inf)
    candidates_B = torch.where(valid_B, deviations_B, -torch.inf)
    best_P = lowest_P.scatter_reduce(0, group.index_B, candidates_B, reduce="amax")
    is_best_B = valid_B & (best_P[group.index_B] - deviations_B < TIE)
    others_B = torch.where(is_best_B, -torch.inf, candidates_B)
    second_P = lowest_P.scatter_reduce(0, group.index_B, others_B, reduce="amax")
    bests_P = torch.zeros_like(group.mean_P).index_add(0, group.index_B, is_best_B.double())
    margin_P = torch.where((bests_P == 1) & torch.isfinite(second_P), best_P - second_P, 0.0)
    return torch.where(is_best_B, margin_P[group.index_B], 0.0).to(rewards_B.dtype)
