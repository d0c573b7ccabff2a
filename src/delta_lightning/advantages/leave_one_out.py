"""RLOO: each answer against the mean of the others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.functional.advantages import leave_one_out
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut(AdvantageEstimator):
    """A_i = R_i - mean of the other rewards of the prompt (RLOO, Ahmadian et al., arXiv 2402.14740), [B], units of the reward.

    The baseline does not depend on the answer that it judges, so the policy gradient is unbiased. Equal to
    n / (n - 1) (R_i - mean): `GroupCentred` times a constant where all groups have n verdicts.

    Groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts and rows without one get
    exactly 0; other code gives the reward itself to an answer without others. It has no fields.
    """

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards."""
        batch = view.batch
        return leave_one_out(batch.rewards_B, batch.group_ids_B, batch.valid_B)

    def min_completions(self) -> int:
        """One completion has no others."""
        return 2
