"""GRPO's advantage: rewards standardised within each prompt's group."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.advantages import STD, Deviation, group_standardise
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class GroupStandardised(AdvantageEstimator):
    """A = (R - mean) / (std + eps) over the completions of a prompt (GRPO, Shao et al., arXiv 2402.03300), [B].

    Groups in which no reward differs from the mean by 1e-6 or more get exactly 0, where rounding would otherwise leave a
    residue that the division blows up. So do groups with fewer than two verdicts, and rows without one.

    Args:
        eps: added to the standard deviation, in units of the reward; at least 0.
        std: "unbiased" (n - 1) or "population" (n). The paper does not say which; the released code of GRPO's descendants
            (verl, TRL, DelTA) takes the unbiased one.

    Raises:
        ConfigError: `eps` below 0, or another `std`.
    """

    eps: float = 1e-6
    std: Deviation = "unbiased"

    def __post_init__(self) -> None:
        require(self.eps >= 0, "advantage.eps", wanted="at least 0", got=self.eps, remedy="The usual value is 1e-6.")
        require(self.std in STD, "advantage.std", wanted=" or ".join(STD), got=self.std, remedy="The usual one is unbiased.")

    def advantages(self, view: StepView) -> Tensor:
        """[B], in the dtype of the rewards."""
        batch = view.batch
        return group_standardise(batch.rewards_B, batch.group_ids_B, batch.valid_B, eps=self.eps, std=STD[self.std])

    def min_completions(self) -> int:
        """One completion has nothing to be compared with."""
        return 2
