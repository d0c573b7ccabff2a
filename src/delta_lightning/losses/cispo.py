"""CISPO: the importance weight is clipped, not the update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class CISPO(PolicyLoss):
    """-sg(clip(r, ratio_floor, ratio_cap)) A log p, r = pi / pi_old, sg without gradient: every token keeps a gradient.

    Clipped importance sampling policy optimisation (MiniMax-M1, arXiv 2506.13585). Both bounds are on r itself: code that
    speaks of epsilon_high may mean r <= 1 + epsilon_high (the paper, verl) or r <= epsilon_high (TRL). The value is no
    surrogate of the return. With many stale updates nothing stops tokens of A < 0 whose r ran away, but for the cap. MiniMax
    publishes no cap; 5 is the absolute one that TRL gives for ScaleRL (Khatri et al., arXiv 2510.13786). Native reduction: the
    token mean.

    Args:
        ratio_cap: largest weight; at least 1.
        ratio_floor: smallest weight, between 0 and 1; 0, the paper's, is none.

    Raises:
        ConfigError: a field out of range.
    """

    ratio_cap: float = 5.0
    ratio_floor: float = 0.0

    def __post_init__(self) -> None:
        cap, floor = self.ratio_cap, self.ratio_floor
        require(
            cap >= 1,
            "loss.ratio_cap",
            wanted="at least 1, a bound on the ratio itself",
            got=cap,
            remedy=f"For a cap at 1 + {cap} write {1 + cap}.",
        )
        require(0 <= floor <= 1, "loss.ratio_floor", wanted="between 0 and 1", got=floor, remedy="0 is no floor.")

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT.detach(), experience.old_logprobs_BT)
        weight_BT = log_ratio_BT.exp().clamp(self.ratio_floor, self.ratio_cap)
        return -weight_BT * experience.token_advantages_BT.to(weight_BT.dtype) * scores.logprobs_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens whose weight is at the cap or the floor, whatever the sign of A; the ratio; k3 of the KL."""
        mask_BT = experience.batch.loss_mask_BT
        drift = drift_metrics(clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT), mask_BT)
        ratio_BT = drift["ratio"]
        shares = {"clip_upper_share": ratio_BT > self.ratio_cap, "clip_lower_share": ratio_BT < self.ratio_floor}
        return {**{name: (value & mask_BT).to(ratio_BT.dtype) for name, value in shares.items()}, **drift}
