"""Keeps answers that were cut at the limit out of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.interfaces import RolloutFilter
from delta_lightning.types import RolloutBatch, with_mask


@dataclass(frozen=True, kw_only=True)
class Truncated(RolloutFilter):
    """Answers cut at the length limit leave the mask: the overlong filtering of DAPO's ablation (arXiv 2503.14476).

    A cut answer is not wrong, only unfinished; a reward of 0 for it teaches brevity by noise. Its reward still counts in its
    group's baseline. A group in which no judged answer was finished is not kept.

    It has no fields.
    """

    def keep_groups(self, batch: RolloutBatch) -> Tensor:
        """[P] bool, by ascending group id: whether any judged answer was finished."""
        ids_P, index_B = torch.unique(batch.group_ids_B, return_inverse=True)
        finished_B = batch.valid_B & ~batch.truncated_B
        return torch.zeros_like(ids_P).index_add(0, index_B, finished_B.to(ids_P.dtype)) > 0

    def apply(self, batch: RolloutBatch) -> RolloutBatch:
        """The batch with every token of cut answers out of the mask."""
        return with_mask(batch, batch.loss_mask_BT & ~batch.truncated_B[:, None])
