"""MaxRL: the group's deviations over its mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.advantages import over_mean
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class MaxRL(AdvantageEstimator):
    """A = (R - mean) / mean over the completions of a prompt (MaxRL, Tajwar et al., arXiv 2602.02710), [B].

    With rewards of 0 and 1 this is a step towards maximum likelihood of a correct answer, log p instead of p: a prompt solved
    once in G answers gives G - 1 to that answer, one solved always gives 0. Made for rewards of 0 and 1; any rewards of at
    least 0 work. A group whose mean is below `min_mean` gets 0: its mean says nothing of a success rate, and a negative one
    would turn all signs.

    Groups of equal rewards (within 1e-6 of their mean), groups with fewer than two verdicts and rows without one get
    exactly 0.

    Args:
        min_mean: smallest mean reward of a group that is divided by, in units of the reward; above 0. The paper has rewards
            of 0 and 1, where only a mean of 0 is a question.

    Raises:
        ConfigError: `min_mean` not above 0.
    """

    min_mean: float = 1e-6

    def __post_init__(self) -> None:
        require(
            self.min_mean > 0,
            "advantage.min_mean",
            wanted="above 0, in units of the reward",
            got=self.min_mean,
            remedy="1e-6 divides by any mean of rewards of 0 and 1 that is not 0.",
        )

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards."""
        batch = view.batch
        return over_mean(batch.rewards_B, batch.group_ids_B, batch.valid_B, min_mean=self.min_mean)

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2
