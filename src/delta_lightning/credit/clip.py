"""Another assigner's scale, kept within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.wrapper import Wrapper, masked
from delta_lightning.errors import require
from delta_lightning.interfaces import StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Clip(Wrapper):
    """scale = min(max(scale, low), high). A shift is left alone.

    The mean changes where anything is clipped; `Normalise` around it restores a mean of 1 and may leave the bounds again. From
    no paper: the bounds are ours.

    Args:
        assigner: any credit assigner, another wrapper included. low: least scale, at least 0.
        high: largest scale, at least `low`; `.inf` for no bound. With `low == high` all tokens get that scale.

    Raises:
        ConfigError: a field out of range.
    """

    low: float = 0.5
    high: float = 2.0

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        require(low >= 0, "credit.Clip.low", wanted="at least 0", got=low, remedy="A negative scale would turn the sign of A.")
        require(high >= low, "credit.Clip.high", wanted=f"at least low ({low})", got=high, remedy="Swap the two.")
        require(low < float("inf"), "credit.Clip.low", wanted="finite", got=low, remedy="Use 0 for no lower bound.")

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Scale within the bounds on trained tokens, [B, T]."""
        scale_BT, shift_BT = self.inner(view)
        return masked(view, scale_BT.clamp(self.low, self.high), shift_BT)
