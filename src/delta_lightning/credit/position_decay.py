"""Credit by position: late tokens, or early ones, count more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.credit.positions import Normaliser, check_normaliser, positional_credit
from delta_lightning.errors import require
from delta_lightning.functional.token_positions import early, late
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit

_DIRECTIONS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"late": late, "early": early}


@dataclass(frozen=True, kw_only=True)
class PositionDecay(CreditAssigner):
    """late: 2 ** -((T - t) / half_life); early: 2 ** -((t - 1) / half_life); t = 1 .. T counts the answer's trained tokens.

    The cheapest temporal credit; needs nothing of the model. Late with half_life = -ln 2 / ln(gamma lambda) is what critic-free
    generalised advantage estimation gives for a terminal reward, and what re-implementations of GRPO-lambda (arXiv 2510.00194)
    often use; the paper's own coefficients decay the other way, see `GRPOLambda`.

    Args:
        direction: which end of an answer keeps weight 1: "late" or "early".
        half_life: tokens over which the weight halves; above 0. 69 is gamma lambda = 0.99. Not published as such: our choice.
        normaliser: "sequence" divides by the mean of each answer, so that credit moves within answers only; "batch" by the mean
            over all tokens of all ranks; "none" leaves the weights, which then shrink the gradient of long answers.

    Raises:
        ConfigError: a field out of range.
    """

    direction: Literal["late", "early"] = "late"
    half_life: float = 69.0
    normaliser: Normaliser = "sequence"

    def __post_init__(self) -> None:
        way, life = self.direction, self.half_life
        require(way in _DIRECTIONS, "credit.PositionDecay.direction", wanted="late or early", got=way, remedy="Choose one.")
        require(life > 0, "credit.PositionDecay.half_life", wanted="above 0, tokens", got=life, remedy="69 is 0.99 per token.")
        check_normaliser("PositionDecay", self.normaliser)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """[B, T], float32."""
        decay = _DIRECTIONS[self.direction]
        return positional_credit(view, lambda index_BT, length_B1: decay(index_BT, length_B1, self.half_life), self.normaliser)
