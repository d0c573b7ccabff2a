"""Keeps answers that repeat another one of their group out of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.duplicates import left_aligned, repeats
from delta_lightning.interfaces import RolloutFilter
from delta_lightning.types import RolloutBatch, with_mask


@dataclass(frozen=True, kw_only=True)
class Duplicates(RolloutFilter):
    """Of answers of one group with the same tokens only the first, by sequence id, is trained on.

    Token ids are compared one by one, the end-of-sequence token included; text is not looked at. Copies without verdict
    neither stay in for another nor push one out. Every copy still counts in its group's baseline, as a sample of the policy:
    the loss alone drops them, and is then no unbiased estimate of the policy gradient. Use it where a small or
    collapsed model repeats itself. All groups are kept; a group of one answer G times has equal rewards, which is
    `ZeroVariance`'s to drop.

    It has no fields.
    """

    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, all True."""
        return torch.ones_like(torch.unique(batch.group_ids_B), dtype=torch.bool)

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with every token of later copies out of the mask."""
        tokens_BT = left_aligned(batch.token_ids_BT, batch.prompt_lengths_B, batch.lengths_B)
        again_B = repeats(tokens_BT, batch.group_ids_B, batch.sequence_ids_B, batch.valid_B)
        return with_mask(batch, batch.loss_mask_BT & ~again_B[:, None])
