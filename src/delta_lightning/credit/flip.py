"""Another assigner's credit, upside down."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.scopes import Scope, check_scope, scope_means
from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Flip(Wrapper):
    """scale = max(0, 2 m - scale), m the mean scale of the scope: tokens that counted more count less, by as much.

    The control for a claim of direction: if the assigner is right, its flip must hurt. Mean and standard deviation of every
    scope stay, unless something is cut off at 0, which happens to scales above 2 m only and raises the mean (`Normalise`
    around it restores 1). DelTA's scales are at most 1.5 m at its default range, so nothing is cut. A shift is reflected
    about its mean too, without a bound. From no paper.

    For coefficients in [low, high], low + high - coefficient is the same up to a constant on each scope. We reflect about the
    mean instead, because that constant would change how much a side weighs, and because it needs no bounds. The default
    scope is the side: DelTA gives tokens with A = 0 its least coefficient, and a flip of the whole batch would take weight
    from both sides and give it to tokens that train nothing.

    Args:
        assigner: any credit assigner, another wrapper included.
        scope: whose mean: side (A > 0, A < 0 and A = 0 each for themselves, all ranks), batch (all trained tokens of all
            ranks), group (of one prompt), sequence (of one response).

    Raises:
        ConfigError: a scope that is none.
    """

    scope: Scope = "side"

    def __post_init__(self) -> None:
        check_scope("Flip", self.scope)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The reflection, [B, T]."""
        scale_BT, shift_BT = self.inner(view)
        (mean,) = scope_means(view, self.scope, scale_BT)
        flipped_BT = (2 * mean - scale_BT).clamp(min=0).to(scale_BT.dtype)
        if shift_BT is None:
            return masked(view, flipped_BT)
        (mean_shift,) = scope_means(view, self.scope, shift_BT)
        return masked(view, flipped_BT, (2 * mean_shift - shift_BT).to(shift_BT.dtype))
