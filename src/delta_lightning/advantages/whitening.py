"""What estimators share that whiten over the whole rollout step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.advantages import Deviation
from delta_lightning.functional.whitening import COUNTS, LOST, Counted, whiten
from delta_lightning.interfaces import AdvantageEstimator, StepView


@dataclass(frozen=True, kw_only=True)
class Whitening(AdvantageEstimator):
    """Fields and the last step of an estimator that whitens; see `functional.whitening`.

    Args:
        counted: "tokens" or "responses". std: "unbiased" or "population". eps: added to the variance.
    """

    counted: Counted = "tokens"
    std: Deviation = "unbiased"
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name, value, known, usual in (
            ("counted", self.counted, COUNTS, "Published code counts tokens."),
            ("std", self.std, LOST, "The usual one is unbiased."),
        ):
            require(value in known, f"advantage.{name}", wanted=" or ".join(known), got=value, remedy=usual)
        require(self.eps >= 0, "advantage.eps", wanted="at least 0", got=self.eps, remedy="The usual value is 1e-8.")

    def whitened(self, view: StepView, values_B: Tensor) -> Tensor:
        """`values_B` whitened over all ranks, in the dtype of the rewards. Two collectives."""
        batch = view.batch
        counts_B = COUNTS[self.counted](batch.loss_mask_BT, batch.valid_B)
        white_B = whiten(values_B, counts_B, all_sum=view.all_sum, lost=LOST[self.std], eps=self.eps)
        return white_B.to(batch.rewards_B.dtype)
