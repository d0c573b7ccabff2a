"""Another assigner's credit with mean 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.scopes import Scope, check_scope, scope_means
from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit

LEAST_MEAN = 1e-12


@dataclass(frozen=True, kw_only=True)
class Normalise(Wrapper):
    """Divides credit by the mean scale of a scope, so that it moves weight between the scope's tokens and adds none.

    With `batch` a token mean takes as large a step as without credit; `side` also keeps the balance of right and wrong answers;
    `group` the balance of prompts; `sequence` that of responses, so that all credit does is within a response. A shift is
    divided by the same mean: what the assigner says of one token beside another stays. Where the mean is at most 1e-12 there
    is nothing to divide: the scope's tokens get scale 1 and no shift.

    Args:
        assigner: any credit assigner, another wrapper included.
        scope: batch (all trained tokens of all ranks), side (A > 0, A < 0 and A = 0 each for themselves, all ranks), group (of
            one prompt), sequence (of one response).

    Raises:
        ConfigError: a scope that is none.
    """

    scope: Scope = "batch"

    def __post_init__(self) -> None:
        check_scope("Normalise", self.scope)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Scale of mean 1 in every scope, [B, T]."""
        scale_BT, shift_BT = self.inner(view)
        (mean,) = scope_means(view, self.scope, scale_BT)
        some = mean > LEAST_MEAN
        factor = torch.where(some, 1 / mean.clamp(min=LEAST_MEAN), 0.0).to(scale_BT.dtype)
        scaled_BT = torch.where(some, scale_BT * factor, 1.0)
        return masked(view, scaled_BT, None if shift_BT is None else shift_BT * factor)
