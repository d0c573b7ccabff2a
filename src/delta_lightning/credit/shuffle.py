"""Another assigner's credit, dealt out to the wrong tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.credit.scopes import Scope, across_ranks, check_scope
from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.functional.token_order import permutation_within
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Shuffle(Wrapper):
    """Permutes scale (and shift, along with it) among the tokens of each scope, by keyed random numbers, anew each step.

    The control for a claim that credit finds the right tokens: each scope keeps exactly the same values, so its mean, spread
    and normaliser too, and only their places are lost. A method that is no better than its shuffle does not gain by its
    choice of tokens. Drawing new values, as DelTA's random-coefficient row does, changes the distribution as well.
    From no paper. The permutation is uniform, and the same on any number of ranks.

    Args:
        assigner: any credit assigner, another wrapper included.
        scope: among which tokens: side (A > 0, A < 0 and A = 0 each for themselves, all ranks), sequence (of one response; its
            mean stays too), group (of one prompt), batch (all trained tokens of all ranks, so that weight moves between sides).
        draw: number of the random draw; two parts with the same number use the same permutation.

    Raises:
        ConfigError: a scope that is none.
    """

    scope: Scope = "side"
    draw: int = 0

    def __post_init__(self) -> None:
        check_scope("Shuffle", self.scope)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The same values in other places, [B, T]."""
        scale_BT, shift_BT = self.inner(view)
        return masked(view, self._permuted(view, scale_BT), None if shift_BT is None else self._permuted(view, shift_BT))

    def _permuted(self, view: StepView, value_BT: Tensor) -> Tensor:
        uniform_BT = view.uniform(f"credit.Shuffle {self.draw}")
        # float64 holds every float32, and ranks must gather one dtype.
        return across_ranks(view, self.scope, _permute, value_BT.double(), uniform_BT).to(value_BT.dtype)

    def token_level(self) -> bool:
        """A sequence's own values stay its own with `sequence` only."""
        return self.scope != "sequence" or self.assigner.token_level()


def _permute(units_N: Tensor, values_N: Tensor, uniform_N: Tensor) -> Tensor:
    return values_N[permutation_within(uniform_N, units_N)]
