"""Rewards shared out among the answers to a prompt, position by position, by their entropies (GTPO, arXiv 2508.04349).

A *cell* is one side of a prompt's answers: the right ones or the wrong ones. Position t is the t-th trained token of an answer;
an answer is alive at t if it has more than t of them. Results are float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape
from delta_lightning.functional.sides import AllSum, group_units, identity


@dataclass(frozen=True)
class Cells:
    """Which prompt and which side each row belongs to.

    Attributes:
        mask_BT: bool, the tokens that count. units_B: int64, prompts numbered 0 .. num_units - 1 on all ranks.
        right_B: bool. all_sum: sum over ranks; the answers to a prompt may lie on several.
    """

    mask_BT: Tensor
    units_B: Tensor
    right_B: Tensor
    num_units: int
    all_sum: AllSum = identity

    @staticmethod
    def of(mask_BT: Tensor, groups_B: Tensor, right_B: Tensor, *, all_sum: AllSum = identity) -> Cells:
        """Numbers the prompts; collective."""
        check_same_shape(groups_B=groups_B, right_B=right_B)
        units_B, num_units = group_units(groups_B, all_sum=all_sum)
        return Cells(mask_BT, units_B, right_B, num_units, all_sum)

    @property
    def cells_B(self) -> Tensor:
        """2 u for right, 2 u + 1 for wrong answers of prompt u."""
        return 2 * self.units_B + (~self.right_B).long()

    def sums(self, values_BX: Tensor) -> Tensor:
        """Sums over the rows of each cell, all ranks, [2 U, X]: a product with a one-hot matrix, the same bits each time."""
        cells = torch.arange(2 * self.num_units, device=values_BX.device)
        return self.all_sum((self.cells_B[:, None] == cells).double().T @ values_BX)

    def tokens(self) -> Tensor:
        """Tokens of each cell, [U, 2]; one collective."""
        return self.sums(self.mask_BT.sum(1, keepdim=True).double()).view(self.num_units, 2)


def position_shares(values_BT: Tensor, cells: Cells) -> Tensor:
    """n v / sum of v over the n answers of a token's cell that are alive at its position; [B, T], 0 outside the mask.

    Mean 1 at every position of every cell, between 0 and n.

    Args:
        values_BT: above 0 where the mask is True.
    """
    mask_BT = cells.mask_BT
    rows_N, places_N = mask_BT.nonzero()[:, 0], (mask_BT.cumsum(1) - 1)[mask_BT]
    _, longest = group_units(places_N, all_sum=cells.all_sum)
    aligned_BL = torch.zeros(len(mask_BT), longest, dtype=torch.float64, device=mask_BT.device)
    values_N = values_BT[mask_BT].double()
    aligned_BL[rows_N, places_N] = values_N
    totals_KL, alive_KL = cells.sums(aligned_BL), cells.sums((aligned_BL > 0).double())
    cells_N = cells.cells_B[rows_N]
    shares_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
    shares_BT[mask_BT] = values_N * alive_KL[cells_N, places_N] / totals_KL[cells_N, places_N]
    return shares_BT


def shaped_rewards(
    entropies_BT: Tensor, rewards_B: Tensor, cells: Cells, *, reward_weight: float, entropy_weight: float, floor: float
) -> Tensor:
    """Right: reward_weight r + entropy_weight share of H. Wrong: -reward_weight - entropy_weight share of 1 / H. [B, T].

    Args:
        floor: entropies below count as this, nats, above 0.
    """
    right_B1 = cells.right_B[:, None]
    floored_BT = entropies_BT.double().clamp(min=floor)
    shares_BT = position_shares(torch.where(right_B1, floored_BT, 1 / floored_BT), cells)
    outcomes_B1 = torch.where(right_B1, rewards_B.double()[:, None], -1.0)
    signs_B1 = torch.where(right_B1, 1.0, -1.0).double()
    return (reward_weight * outcomes_B1 + entropy_weight * signs_B1 * shares_BT) * cells.mask_BT


def standardised_sides(values_BT: Tensor, cells: Cells, *, eps: float) -> Tensor:
    """(value - mean) / (std + eps) over the tokens of each cell, [B, T]; population std, two passes."""
    return _standardised(values_BT, cells, torch.arange(2 * cells.num_units, device=values_BT.device), eps)


def standardised_groups(values_BT: Tensor, cells: Cells, *, eps: float) -> Tensor:
    """The same over the tokens of both sides of a prompt."""
    return _standardised(values_BT, cells, torch.arange(2 * cells.num_units, device=values_BT.device) // 2, eps)


def _standardised(values_BT: Tensor, cells: Cells, pool_K: Tensor, eps: float) -> Tensor:
    """`pool_K` numbers the pools of cells whose tokens are compared."""
    mask_BT = cells.mask_BT

    def pool_mean(sums_B: Tensor) -> Tensor:
        """[B]: the mean over the tokens of each row's pool."""
        sums_K2 = cells.sums(torch.stack([sums_B, mask_BT.sum(1).double()], dim=1))
        pooled_B2 = torch.zeros_like(sums_K2).index_add(0, pool_K, sums_K2)[pool_K[cells.cells_B]]
        return pooled_B2[:, 0] / pooled_B2[:, 1].clamp(min=1)

    mean_B = pool_mean((values_BT * mask_BT).sum(1))
    centred_BT = (values_BT - mean_B[:, None]) * mask_BT
    variance_B = pool_mean(centred_BT.square().sum(1))
    return centred_BT / (variance_B.sqrt() + eps)[:, None]
