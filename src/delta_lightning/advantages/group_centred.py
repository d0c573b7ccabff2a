"""Dr. GRPO's advantage: rewards minus the mean of each prompt's group."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.advantages import group_centre
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class GroupCentred(AdvantageEstimator):
    """A = R - mean over the completions of a prompt (Dr. GRPO, Liu et al., arXiv 2503.20783), [B], in units of the reward.

    Without GRPO's division by the standard deviation, prompts that are nearly always or nearly never solved are not
    weighted up. Dr. GRPO also divides the loss by a constant length, which is a reduction's choice and not made here.

    Groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts and rows without one get
    exactly 0. It has no fields.
    """

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards."""
        batch = view.batch
        return group_centre(batch.rewards_B, batch.group_ids_B, batch.valid_B)

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2
