"""Coefficients drawn at random: DelTA without its gates."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.range_mapped import check_range, range_mapped
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Random(CreditAssigner):
    """lambda = low + (high - low) u with u uniform in (0, 1) per token, then divided by its mean, as DelTA does with its gates.

    The random control of DelTA's paper (Zhang, Wu and Lin, arXiv 2605.21467), whose law of the draw is not published: uniform
    is our choice. As in DelTA, tokens with A = 0 get `low`, so that both raise the others' coefficients alike. Draws are keyed
    by run seed, rollout step, sequence and position. If all coefficients are 0, all become 1.

    Args:
        low: smallest coefficient before normalisation; at least 0. high: largest; above 0 and at least `low`.
        draw: number of the draw; parts with the same number draw the same.

    Raises:
        ConfigError: a field out of range.
    """

    low: float = 0.8
    high: float = 1.2
    draw: int = 0

    def __post_init__(self) -> None:
        check_range("Random", self.low, self.high)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Mean 1 over all ranks, [B, T], float32."""
        gates_BT = view.uniform(f"credit.Random {self.draw}")
        return range_mapped(view, gates_BT, low=self.low, high=self.high, dtype=torch.float32)

    def token_level(self) -> bool:
        """Unless `low == high`; even then tokens with A = 0 get what the others get."""
        return self.low != self.high
