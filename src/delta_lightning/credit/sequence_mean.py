"""Another assigner's credit, averaged over each response."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.credit.scopes import scope_means
from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class SequenceMean(Wrapper):
    """Every token gets the mean scale, and the mean shift, of its response's trained tokens.

    The control for a claim of token-level credit: weights of responses, the batch's mean and each side's stay, differences
    within a response go. A method that is no better than its sequence mean weighs responses, not tokens. From no paper. With
    it, losses that keep only a sequence's mean credit (GSPO, GMPO, LUSPO) take any multiplicative assigner.

    Args:
        assigner: any credit assigner, another wrapper included.
    """

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """One value per response, [B, T]."""
        mask_BT = view.batch.loss_mask_BT
        scale_BT, shift_BT = self.inner(view)

        def mean_BT(value_BT: Tensor) -> Tensor:
            (mean,) = scope_means(view, "sequence", value_BT)
            return mean.to(value_BT.dtype).expand(mask_BT.shape)

        return masked(view, mean_BT(scale_BT), None if shift_BT is None else mean_BT(shift_BT))

    def token_level(self) -> bool:
        """One value per response."""
        return False
