"""GRPO's reduction: the mean over sequences of the mean over their tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.sequence_weights import per_sequence, sequence_mean_weights
from delta_lightning.interfaces import Reduction
from delta_lightning.types import Experience, StepTotals


@dataclass(frozen=True, kw_only=True)
class SequenceMean(Reduction):
    """1 / (sequences * tokens of its sequence) on every trained token (GRPO, Shao et al., arXiv 2402.03300).

    Every sequence weighs the same, so a token of a short answer weighs more than one of a long answer. Sequences are those with
    at least one trained token, over all micro-batches and ranks of the optimiser step.

    It has no fields.
    """

    def weights(self, experience: Experience, totals: StepTotals) -> Tensor:
        """[B, T], in the dtype of the log-probabilities; all 0 if the step trains no token."""
        weights_BT = sequence_mean_weights(experience.batch.loss_mask_BT, dtype=experience.old_logprobs_BT.dtype)
        return weights_BT * per_sequence(totals.sequences)
