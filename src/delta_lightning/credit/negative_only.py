"""Another assigner's credit where the advantage is negative."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.scopes import advantages_of
from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class NegativeOnly(Wrapper):
    """The assigner's scale and shift where A < 0; scale 1 and no shift elsewhere.

    Tells whether credit helps by what is punished. The assigner inside still sees both sides. The mean scale is then no longer
    1; `Normalise` around it with `scope: side` makes it 1 on either side, so that the balance of sides stays.

    Args:
        assigner: any credit assigner, another wrapper included.
    """

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The assigner's credit on one side, [B, T]."""
        chosen = advantages_of(view) < 0
        scale_BT, shift_BT = self.inner(view)
        return masked(view, torch.where(chosen, scale_BT, 1.0), None if shift_BT is None else shift_BT * chosen)
