"""Two corrections at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from delta_lightning.corrections.statistic_rejection import StatisticRejection
from delta_lightning.corrections.truncated_importance import TruncatedImportance
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction, Need


@dataclass(frozen=True, kw_only=True)
class CombinedCorrection(RolloutCorrection):
    """Weights multiplied, masks intersected: drop what is far, weight what is close.

    Each of the two sees the whole mask, not what the other left of it, so their order does not matter. The defaults are
    verl's preset of k3 rejection with truncated token weights. More than two: nest it.

    Args:
        rejection: the correction that drops tokens or sequences; any correction.
        importance: the correction that weights; any correction.
    """

    rejection: RolloutCorrection = field(default_factory=StatisticRejection)
    importance: RolloutCorrection = field(default_factory=TruncatedImportance)

    def correct(self, view: StepView) -> Correction:
        """The product of the weights on the intersection of the masks, both [B, T]."""
        one, other = self.rejection.correct(view), self.importance.correct(view)
        mask_BT = one.mask_BT & other.mask_BT
        return Correction(weights_BT=one.weights_BT * other.weights_BT * mask_BT, mask_BT=mask_BT)

    def needs(self) -> frozenset[Need]:
        """What the two need."""
        return self.rejection.needs() | self.importance.needs()
