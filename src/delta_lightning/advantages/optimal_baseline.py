"""OPO: the baseline that minimises the gradient's variance, if a response's gradient grows with its length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.advantages import weighted_baseline
from delta_lightning.functional.whitening import count_tokens
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class OptimalBaseline(AdvantageEstimator):
    """A_i = R_i - b, b = sum_j T_j R_j / sum_j T_j over the prompt's completions (OPO, Hao et al., arXiv 2505.23585), [B].

    The variance of a policy gradient is least with rewards weighted by the squared norm of each response's gradient; OPO
    takes the number of its tokens T_j for that norm. T_j counts trained tokens, so a response out of the loss mask has no
    weight in b. OPO is meant for exactly on-policy training: one update per rollout step.

    Groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts and rows without one get
    exactly 0, and so do rewards within 1e-6 of b; other code gives the reward itself to an answer without others. A group
    without any trained token falls back to the plain mean. It has no fields.
    """

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards and in their units."""
        batch = view.batch
        lengths_B = count_tokens(batch.loss_mask_BT, batch.valid_B)
        return weighted_baseline(batch.rewards_B, batch.group_ids_B, batch.valid_B, lengths_B)

    def min_completions(self) -> int:
        """One completion is its own baseline."""
        return 2
