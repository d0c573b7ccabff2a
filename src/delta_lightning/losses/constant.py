"""The null object of token weightings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.interfaces import TokenWeighting
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class Constant(TokenWeighting):
    """Weight 1 on every token, at every update.

    It has no fields.
    """

    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """Ones, [B, T], in the dtype of the scores."""
        return torch.ones_like(scores.logprobs_BT, requires_grad=False)

    def token_level(self) -> bool:
        """All tokens weigh the same."""
        return False
