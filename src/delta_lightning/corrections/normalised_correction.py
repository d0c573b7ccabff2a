"""Another correction's weights, with mean 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from delta_lightning.corrections.truncated_importance import TruncatedImportance
from delta_lightning.errors import require
from delta_lightning.functional.corrections import row_sum
from delta_lightning.interfaces import RolloutCorrection, StepView
from delta_lightning.types import Correction, Need


@dataclass(frozen=True, kw_only=True)
class NormalisedCorrection(RolloutCorrection):
    """The weights of another correction divided by their mean over all ranks, so that they do not change the step size.

    Self-normalised importance sampling; verl's `rollout_is_batch_normalize`. The mean is over what is left in the mask. If
    every weight is 0 they stay 0. Truncated weights may exceed their cap afterwards. Put it outermost: what multiplies the
    weights later changes their mean again.

    Args:
        correction: whose weights.
        over: "tokens": the mean over trained tokens is 1; "sequences": the mean over sequences of each one's token mean is 1,
            which suits sequence weights.

    Raises:
        ConfigError: a field out of range.
    """

    correction: RolloutCorrection = field(default_factory=TruncatedImportance)
    over: Literal["tokens", "sequences"] = "tokens"

    def __post_init__(self) -> None:
        require(
            self.over in ("tokens", "sequences"),
            "correction.over",
            wanted="'tokens' or 'sequences'",
            got=self.over,
            remedy="'tokens' suits weights per token.",
        )

    @torch.no_grad()
    def correct(self, view: StepView) -> Correction:
        """Weights of mean 1, [B, T], 0 outside the mask; the other correction's mask."""
        one = self.correction.correct(view)
        total_B, count_B = row_sum(one.weights_BT, one.mask_BT), one.mask_BT.sum(1, keepdim=True)
        if self.over == "sequences":
            total_B, count_B = total_B / count_B.clamp(min=1), count_B.clamp(max=1)
        total, count = view.all_sum(torch.stack([total_B.sum(), count_B.double().sum()])).unbind()
        factor = torch.where(total > 0, count / total, 1.0)
        return Correction(weights_BT=one.weights_BT * factor.to(one.weights_BT.dtype), mask_BT=one.mask_BT)

    def needs(self) -> frozenset[Need]:
        """What the other correction needs."""
        return self.correction.needs()
