"""Another assigner's credit from some step on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.errors import require
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Schedule(Wrapper):
    """Blends from uniform credit: scale = 1 + w (scale - 1), shift = w shift, w = (step - start_step) / ramp_steps in [0, 1].

    With `ramp_steps: 0`, w is 0 before `start_step` and 1 from it on. Steps are rollout steps from 0; a resumed run goes on
    where it stopped. While w is 0 the assigner inside is not run; what it needs of the scoring pass is computed all the same,
    since needs are fixed for a run. From no paper: the numbers are ours.

    Args:
        assigner: any credit assigner, another wrapper included.
        start_step: last step of uniform credit if there is a ramp, else the first without it; at least 0.
        ramp_steps: steps from there to full credit; at least 0.

    Raises:
        ConfigError: a field out of range.
    """

    start_step: int = 0
    ramp_steps: int = 20

    def __post_init__(self) -> None:
        start, ramp = self.start_step, self.ramp_steps
        remedy = "Use 0 to begin with the first rollout step."
        require(start >= 0, "credit.Schedule.start_step", wanted="at least 0", got=start, remedy=remedy)
        remedy = "Use 0 for full credit at once."
        require(ramp >= 0, "credit.Schedule.ramp_steps", wanted="at least 0", got=ramp, remedy=remedy)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """The blend, [B, T]."""
        weight = self.weight(view.step)
        if weight == 0:
            ones_BT = view.batch.loss_mask_BT.float()
            return Credit(scale_BT=ones_BT, shift_BT=torch.zeros_like(ones_BT) if self.additive() else None)
        scale_BT, shift_BT = self.inner(view)
        # Not 1 + w (scale - 1): at w = 1 that would lose bits of the scale.
        return masked(view, weight * scale_BT + (1 - weight), None if shift_BT is None else weight * shift_BT)

    def weight(self, step: int) -> float:
        """w at a rollout step."""
        if self.ramp_steps == 0:
            return float(step >= self.start_step)
        return min(1.0, max(0.0, (step - self.start_step) / self.ramp_steps))
