"""DAPO's reduction: the mean over all trained tokens of an optimiser step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.reduction import token_mean_weights
from delta_lightning.interfaces import Reduction
from delta_lightning.types import Experience, StepTotals


@dataclass(frozen=True, kw_only=True)
class TokenMean(Reduction):
    """1 / tokens on every trained token, tokens counted over all micro-batches and ranks (DAPO, Yu et al., arXiv 2503.14476).

    Long answers therefore weigh more than short ones. Credit that was dropped by a mask is in no denominator.

    It has no fields.
    """

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T], in the dtype of the log-probabilities; all 0 if the step trains no token."""
        return token_mean_weights(experience.batch.loss_mask_BT, tokens=totals.tokens, dtype=experience.old_logprobs_BT.dtype)
