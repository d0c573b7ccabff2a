"""Drops groups whose answers were all equally good."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.advantages import group_statistics
from delta_lightning.interfaces import RolloutFilter
from delta_lightning.types import RolloutBatch, with_mask


@dataclass(frozen=True, kw_only=True)
class ZeroVariance(RolloutFilter):
    """Keeps groups whose valid rewards are not all equal: the filter of DAPO's dynamic sampling (arXiv 2503.14476).

    A group that is dropped has advantage 0 on every row, so it adds nothing but its tokens to the denominators. Rewards
    count as equal where `GroupStandardised` takes them as equal: none differs from the mean by 1e-6 or more. A group with
    fewer than two verdicts is dropped.

    It has no fields.
    """

    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, by ascending group id."""
        return ~group_statistics(batch.rewards_B, batch.group_ids_B, batch.valid_B).tied_P

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with every token of the other groups out of the mask, its sampler's log-probabilities set to 0 there."""
        group = group_statistics(batch.rewards_B, batch.group_ids_B, batch.valid_B)
        mask_BT = batch.loss_mask_BT & ~group.tied_P[group.index_B][:, None]
        return with_mask(batch, mask_BT)
