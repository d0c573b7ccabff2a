"""The null object of corrections."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction


@dataclass(frozen=True, kw_only=True)
class NoCorrection(RolloutCorrection):
    """Weight 1 on every trained token: the sampler is taken to be the policy under theta_old.

    It has no fields.
    """

    def corrects(self) -> bool:
        """Never."""
        return False

    def correct(self, view: StepView) -> Correction:
        """The mask as weights, float32, and the mask itself."""
        mask_BT = view.batch.loss_mask_BT
        return Correction(weights_BT=mask_BT.to(torch.float32), mask_BT=mask_BT)
