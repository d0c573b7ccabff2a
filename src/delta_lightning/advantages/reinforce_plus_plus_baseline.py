"""REINFORCE++ with a group baseline: centred within the group, whitened over the rollout step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.advantages.whitening import Whitening
from delta_lightning.functional.advantages import group_statistics, snapped_deviations
from delta_lightning.interfaces import StepView


@dataclass(frozen=True, kw_only=True)
class ReinforcePlusPlusBaseline(Whitening):
    """A = (D - mean) / sqrt(variance + eps), D = R - mean of the prompt's group (Hu et al., arXiv 2501.03262), [B].

    The baseline is the group's, the scale is that of the whole rollout step, on all ranks: GRPO without a weight per prompt's
    difficulty, and without a division by the small spread of a nearly tied group.

    D is exactly 0 in groups of equal rewards (within 1e-6 of their mean) and in groups with fewer than two verdicts (other
    code takes the reward itself). The whitening then shifts all rows by the mean of D. That is 0 where whole groups of
    responses are counted, but not where tokens are: a group of equal rewards then gets a small advantage of one sign, as
    published. Choose "responses", or a filter of such groups, where that matters. Rows without a verdict or without a trained
    token get 0.

    Args:
        counted: what mean and variance are taken over: "tokens", each trained token with its answer's D, so that long answers
            weigh more (as published code does), or "responses", each answer once.
        std: "unbiased" (n - 1, as in verl) or "population" (n, as in OpenRLHF), n the number of what is counted.
        eps: added to the variance, in squared units of the reward; at least 0.

    Raises:
        ConfigError: a field out of range.
    """

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards. Two collectives."""
        batch = view.batch
        return self.whitened(view, snapped_deviations(group_statistics(batch.rewards_B, batch.group_ids_B, batch.valid_B)))

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2
