"""What all wrappers share: the assigner inside, and its answers passed on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.credit.delta import Delta
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Wrapper(CreditAssigner):
    """Changes the credit that another assigner gives. The one inside sees the raw advantages and all trained tokens.

    Args:
        assigner: any credit assigner, another wrapper included.
    """

    assigner: CreditAssigner = Delta()  # noqa: RUF009 -- immutable

    def needs(self) -> frozenset[Need]:
        """What the assigner inside needs."""
        return self.assigner.needs()

    def cut_dependent(self) -> bool:
        """As the assigner inside."""
        return self.assigner.cut_dependent()

    def token_level(self) -> bool:
        """As the assigner inside."""
        return self.assigner.token_level()

    def per_response(self) -> bool:
        """As the assigner inside."""
        return self.assigner.per_response()

    def additive(self) -> bool:
        """As the assigner inside."""
        return self.assigner.additive()

    def inner(self, view: StepView) -> tuple[Tensor, Tensor | None]:
        """Scale and shift of the assigner inside, detached; a shift on every rank if it is additive, else on none."""
        credit = self.assigner.credit(view)
        scale_BT, shift_BT = credit.scale_BT.detach(), credit.shift_BT
        if not self.assigner.additive():
            return scale_BT, None
        return scale_BT, torch.zeros_like(scale_BT) if shift_BT is None else shift_BT.detach()


def masked(view: StepView, scale_BT: Tensor, shift_BT: Tensor | None = None) -> Credit:
    """Both, 0 outside the mask."""
    mask_BT = view.batch.loss_mask_BT
    return Credit(scale_BT=scale_BT * mask_BT, shift_BT=None if shift_BT is None else shift_BT * mask_BT)
