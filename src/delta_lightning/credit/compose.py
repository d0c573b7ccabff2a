"""Several assigners, one after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.credit.wrapper import masked
from delta_lightning.errors import require
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit, Need


@dataclass(frozen=True, kw_only=True)
class Compose(CreditAssigner):
    """Applies assigners in their order: token advantage = s_n (... s_2 (s_1 A + d_1) + d_2 ...) + d_n.

    Scales multiply; a shift is multiplied by the scales that come after it. How the list is nested does not matter, and without
    shifts neither does its order. Every assigner sees the raw advantages, not what those before it made of them, so none
    changes what another computes. The product of scales of mean 1 does not have mean 1: put `Normalise` around it.

    Args:
        assigners: at least one. What they need of the scoring pass is computed once for all.

    Raises:
        ConfigError: an empty list.
    """

    assigners: tuple[CreditAssigner, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "assigners", tuple(self.assigners))  # YAML gives a list
        remedy = "Use --model.credit=Uniform for credit that does nothing."
        require(len(self.assigners) > 0, "credit.Compose.assigners", wanted="at least one", got=[], remedy=remedy)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The product of the scales and the shift that is left of all shifts, both [B, T]."""
        credits = [assigner.credit(view) for assigner in self.assigners]
        scale_BT, shift_BT = credits[0].scale_BT, credits[0].shift_BT
        for credit in credits[1:]:
            scale_BT = scale_BT * credit.scale_BT
            shift_BT = _then(shift_BT, credit)
        return masked(view, scale_BT, shift_BT)

    def needs(self) -> frozenset[Need]:
        """What any of them needs."""
        return frozenset().union(*(assigner.needs() for assigner in self.assigners))

    def cut_dependent(self) -> bool:
        """If any of them is."""
        return any(assigner.cut_dependent() for assigner in self.assigners)

    def token_level(self) -> bool:
        """If any of them is."""
        return any(assigner.token_level() for assigner in self.assigners)

    def per_response(self) -> bool:
        """If any of them is."""
        return any(assigner.per_response() for assigner in self.assigners)

    def additive(self) -> bool:
        """If any of them is."""
        return any(assigner.additive() for assigner in self.assigners)


def _then(shift_BT: Tensor | None, credit: Credit) -> Tensor | None:
    if shift_BT is None:
        return credit.shift_BT
    scaled_BT = shift_BT * credit.scale_BT
    return scaled_BT if credit.shift_BT is None else scaled_BT + credit.shift_BT
