"""GSPO: one ratio per sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio, clipped_surrogate
from delta_lightning.functional.policy_sequence import row_mean, sequence_log_ratio
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class GSPO(PolicyLoss):
    """-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A), s the geometric mean of r = pi / pi_old over the sequence.

    Group sequence policy optimisation (Zheng et al., arXiv 2507.18071). A is the mean token advantage of the sequence: **only
    the mean of its credit survives**, so token-level credit is refused; `GSPOToken` keeps it. Each token carries the
    sequence's loss. Native reduction: the sequence mean of token means (`SequenceMean`), which gives the paper's loss; under
    the token mean long sequences weigh more, which is `LUSPO`. The bounds are hundreds of times narrower than PPO's because s
    is a mean; with 0.2 nothing would ever be clipped. A share of 15 % of clipped tokens is normal. A row without trained
    tokens has no loss.

    Args:
        clip_low: how far s may fall below 1 before a sequence with A < 0 stops pushing; between 0 and 1.
        clip_high: how far s may rise above 1 before a sequence with A > 0 stops pushing; at least 0.
        log_ratio_clamp: bound on |log s|, nats, above 0; beyond it a sequence has no gradient (verl bounds it by 10).

    Raises:
        ConfigError: a field out of range.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    log_ratio_clamp: float = 10.0

    def __post_init__(self) -> None:
        check_bounds(self.clip_low, self.clip_high, self.log_ratio_clamp)

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T]: the sequence's loss on each of its tokens, 0 outside the mask."""
        mask_BT = experience.batch.loss_mask_BT
        advantages_B1 = row_mean(experience.token_advantages_BT.to(scores.logprobs_BT.dtype), mask_BT)
        log_ratio_B1 = sequence_log_ratio(scores.logprobs_BT - experience.old_logprobs_BT, mask_BT, clamp=self.log_ratio_clamp)
        loss_B1 = clipped_surrogate(
            log_ratio_B1.exp(), advantages_B1, clip_low=self.clip_low, clip_high=self.clip_high, dual_clip=None
        )
        return loss_B1 * mask_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens in clipped sequences, s, and each token's own ratio and k3 estimate of the KL."""
        advantages_B1 = row_mean(experience.token_advantages_BT, experience.batch.loss_mask_BT)
        return sequence_metrics(
            experience, scores, advantages_B1, low=self.clip_low, high=self.clip_high, clamp=self.log_ratio_clamp
        )

    def erases_token_credit(self) -> bool:
        """Only the sequence mean of credit has an effect."""
        return True


def check_bounds(clip_low: float, clip_high: float, log_ratio_clamp: float) -> None:
    """Refuse bounds of a sequence ratio that are out of range."""
    require(0 <= clip_low <= 1, "loss.clip_low", wanted="between 0 and 1", got=clip_low, remedy="GSPO's paper uses 3e-4.")
    require(clip_high >= 0, "loss.clip_high", wanted="at least 0", got=clip_high, remedy="GSPO's paper uses 4e-4.")
    require(
        log_ratio_clamp > 0,
        "loss.log_ratio_clamp",
        wanted="above 0, nats",
        got=log_ratio_clamp,
        remedy="The usual value is 10.",
    )


def sequence_metrics(
    experience: Experience, scores: TokenScores, advantages: Tensor, *, low: float, high: float, clamp: float
) -> dict[str, Tensor]:
    """What sequence-ratio losses report; `advantages` is [B, 1] or [B, T]."""
    mask_BT = experience.batch.loss_mask_BT
    log_ratio_B1 = sequence_log_ratio(scores.logprobs_BT - experience.old_logprobs_BT, mask_BT, clamp=clamp)
    ratio_B1 = log_ratio_B1.exp()
    values = {
        "clip_upper_share": (advantages > 0) & (ratio_B1 > 1 + high),
        "clip_lower_share": (advantages < 0) & (ratio_B1 < 1 - low),
        "sequence_ratio": ratio_B1,
    }
    drift = drift_metrics(clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT), mask_BT)
    return {**{name: (value * mask_BT).to(ratio_B1.dtype) for name, value in values.items()}, **drift}
