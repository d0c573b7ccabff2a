"""GSPO-token: the sequence's ratio, the token's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.policy import clipped_surrogate
from delta_lightning.functional.policy_sequence import sequence_log_ratio
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.losses.gspo import check_bounds, sequence_metrics
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class GSPOToken(PolicyLoss):
    """-min(s_t A_t, clip(s_t, 1 - clip_low, 1 + clip_high) A_t) with s_t = sg(s) pi / sg(pi): value s, gradient of the token.

    GSPO-token (Zheng et al., arXiv 2507.18071, section 4.3); s is the geometric mean of pi / pi_old over the sequence, sg is
    without gradient. It keeps token-level credit. Where A is the same for all tokens, its gradient is `GSPO`'s. A whole
    sequence is clipped or not by the sign of A, so all its token advantages must have one sign: additive credit, which can turn
    a sign, is refused. Native reduction: the sequence mean of token means (`SequenceMean`). It is what verl calls "gspo".

    Args:
        clip_low: how far s may fall below 1 before tokens with A < 0 stop pushing; between 0 and 1.
        clip_high: how far s may rise above 1 before tokens with A > 0 stop pushing; at least 0.
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
        """[B, T], 0 outside the mask."""
        logprobs_BT, mask_BT = scores.logprobs_BT, experience.batch.loss_mask_BT
        old_BT, detached_BT = experience.old_logprobs_BT, logprobs_BT.detach()
        # No bound yet: the clamp below takes away the gradient of a sequence beyond it, as it does in `GSPO`.
        sequence_B1 = sequence_log_ratio(detached_BT - old_BT, mask_BT, clamp=float("inf"))
        log_ratio_BT = (sequence_B1 + (logprobs_BT - detached_BT)).clamp(-self.log_ratio_clamp, self.log_ratio_clamp)
        return clipped_surrogate(
            log_ratio_BT.exp(),
            experience.token_advantages_BT.to(logprobs_BT.dtype),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=None,
        )

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens without gradient, s, and each token's own ratio and k3 estimate of the KL."""
        advantages_BT = experience.token_advantages_BT
        return sequence_metrics(
            experience, scores, advantages_BT, low=self.clip_low, high=self.clip_high, clamp=self.log_ratio_clamp
        )

    def single_signed(self) -> bool:
        """The clip of a sequence goes by one sign."""
        return True
