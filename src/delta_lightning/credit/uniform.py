"""Every trained token counts the same: the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Uniform(CreditAssigner):
    """Scale 1 on every trained token. With `ClippedSurrogate` and `TokenMean` this is DAPO (Yu et al., arXiv 2503.14476).

    It has no fields.
    """

    def credit(self, view: StepView) -> Credit:
        """The mask as float32, [B, T]."""
        return Credit(scale_BT=view.batch.loss_mask_BT.to(torch.float32))

    def token_level(self) -> bool:
        """All tokens of a sequence get the same credit."""
        return False
