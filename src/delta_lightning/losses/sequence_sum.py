"""The mean over sequences of the sum over their tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.sequence_weights import per_sequence
from delta_lightning.interfaces import Reduction
from delta_lightning.types import Experience, StepTotals


@dataclass(frozen=True, kw_only=True)
class SequenceSum(Reduction):
    """1 / sequences on every trained token: the policy gradient of the expected return, as REINFORCE and RLOO state it.

    Ahmadian et al., arXiv 2402.14740. The gradient grows with the length of answers; `ConstantLength` is the same up to a
    constant. Sequences are those with at least one trained token, over all micro-batches and ranks of the optimiser step.

    It has no fields.
    """

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T], in the dtype of the log-probabilities; all 0 if the step trains no token."""
        return experience.batch.loss_mask_BT.to(experience.old_logprobs_BT.dtype) * per_sequence(totals.sequences)
