"""Rare tokens count more: the scalar factor of DelTA's proxy, without the direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from delta_lightning.credit.range_mapped import check_range, range_mapped
from delta_lightning.credit.token_values import token_values
from delta_lightning.interfaces import CreditAssigner, StepView
from delta_lightning.types import Credit


@dataclass(frozen=True, kw_only=True)
class Surprise(CreditAssigner):
    """lambda = low + (high - low) (1 - p), p the probability of the token under theta_old, then divided by its mean.

    A control of ours. DelTA's proxy is (1 - p) h: a token of probability near 1 has hardly any weight whatever its state h.
    This keeps the factor and drops the direction, with DelTA's range and normalisation; tokens with A = 0 get `low`. If DelTA
    does no better, its gain is not in the direction. If all coefficients are 0, all become 1.

    Args:
        low: coefficient of a certain token, before normalisation; at least 0. high: of a token of probability 0; above 0 and
            at least `low`.

    Raises:
        ConfigError: a field out of range.
    """

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        check_range("Surprise", self.low, self.high)

    @torch.no_grad()
    def credit(self, view: StepView) -> Credit:
        """Mean 1 over all ranks, [B, T]."""
        logprobs_BT = token_values(view, lambda scores: scores.logprobs_BT)
        gates_BT = -torch.expm1(logprobs_BT.double())  # 1 - exp(log p) without cancellation where p is close to 1
        return range_mapped(view, gates_BT, low=self.low, high=self.high, dtype=logprobs_BT.dtype)

    def token_level(self) -> bool:
        """Unless `low == high`."""
        return self.low != self.high
