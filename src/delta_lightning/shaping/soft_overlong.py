"""DAPO's soft punishment of answers that come near the length limit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.interfaces import RewardShaping
from delta_lightning.types import RolloutBatch


@dataclass(frozen=True, kw_only=True)
class SoftOverlong(RewardShaping):
    """R + p(T): p = 0 up to max_length - buffer tokens, then falls linearly to -factor at max_length, and stays there.

    The soft overlong punishment of DAPO (arXiv 2503.14476, eq. 13), p(T) = -factor (T - (max_length - buffer)) / buffer in the
    buffer; the defaults are the paper's. T counts the tokens of the completion, the end-of-sequence token included, whatever
    the mask. The paper's rewards are 1 and -1: with 0 and 1 the same factor weighs twice as much. DelTA's setting does
    without. A group of right answers may get unequal rewards and pass `ZeroVariance`; it does not pass `AccuracyRange`.

    Args:
        max_length: length, tokens, from which the punishment is whole, at least 1; set it to `sampling.max_new_tokens`, for
            below max_length - buffer nothing is punished.
        buffer: tokens before max_length over which the punishment grows, 1 to max_length.
        factor: the whole punishment, in units of the reward, finite and at least 0.

    Raises:
        ConfigError: a field out of range.
    """

    max_length: int = 20480
    buffer: int = 4096
    factor: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.max_length >= 1,
            "shaping.max_length",
            wanted="at least 1 token",
            got=self.max_length,
            remedy="Set it to sampling.max_new_tokens.",
        )
        require(
            1 <= self.buffer <= self.max_length,
            "shaping.buffer",
            wanted=f"1 to max_length = {self.max_length} tokens",
            got=self.buffer,
            remedy="DAPO uses a fifth of max_length.",
        )
        require(
            0 <= self.factor < math.inf,
            "shaping.factor",
            wanted="finite and at least 0",
            got=self.factor,
            remedy="DAPO uses 1.",
        )

    def rewards(self, batch: RolloutBatch) -> Tensor:
        """[B], in the dtype of the rewards; 0 without a verdict."""
        over_B = (batch.lengths_B - (self.max_length - self.buffer)).clamp(0, self.buffer)
        punishment_B = over_B.to(batch.rewards_B.dtype) * (self.factor / self.buffer)
        return torch.where(batch.valid_B, batch.rewards_B - punishment_B, 0.0)
