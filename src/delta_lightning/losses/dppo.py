"""DPPO: a trust region on probabilities in place of the ratio clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_token import binary_kl, binary_tv, drift_metrics, inside_trust_region
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores

DIVERGENCES = {"tv": binary_tv, "kl": binary_kl}
THRESHOLDS = {"tv": 0.15, "kl": 0.05}


@dataclass(frozen=True, kw_only=True)
class DPPO(PolicyLoss):
    """-sg(min(r, ratio_cap)) A log p on tokens inside a trust region, 0 on others; r = pi / pi_old, sg without gradient.

    Divergence proximal policy optimisation (Qi et al., arXiv 2602.04879), its binary forms, which see "this token" against
    "any other". A token leaves the region if A pushes it away from the old policy and the divergence is above the threshold;
    one that moves back stays. A ratio clip is tight for rare tokens and loose for frequent ones; this is not. The anchor is
    pi_old, the trainer's own log-probabilities before the update; the paper anchors on the sampler's (what lies between them
    is the correction's). The value is no surrogate of the return. Native reduction: the token mean.

    Args:
        divergence: "tv" (difference of the token's probabilities) or "kl" (of old to new, nats).
        threshold_low: bound where A < 0, above 0; null for the authors' script's: 0.15 for tv, 0.05 for kl.
        threshold_high: bound where A > 0, above 0; null likewise.
        ratio_cap: largest importance weight; at least 1.

    Raises:
        ConfigError: a field out of range.
    """

    divergence: Literal["tv", "kl"] = "tv"
    threshold_low: float | None = None
    threshold_high: float | None = None
    ratio_cap: float = 20.0

    def __post_init__(self) -> None:
        require(
            self.divergence in DIVERGENCES,
            "loss.divergence",
            wanted="tv or kl",
            got=self.divergence,
            remedy="tv is the default.",
        )
        for name in ("threshold_low", "threshold_high"):
            value = getattr(self, name)
            require(
                value is None or value > 0,
                f"loss.{name}",
                wanted="above 0, or null",
                got=value,
                remedy="null is 0.15 for tv and 0.05 for kl.",
            )
        require(self.ratio_cap >= 1, "loss.ratio_cap", wanted="at least 1", got=self.ratio_cap, remedy="The usual value is 20.")

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        logprobs_BT = scores.logprobs_BT.detach()
        weight_BT = clamped_log_ratio(logprobs_BT, experience.old_logprobs_BT).exp().clamp(max=self.ratio_cap)
        weight_BT = weight_BT * self._inside(experience, logprobs_BT)
        return -weight_BT * experience.token_advantages_BT.to(weight_BT.dtype) * scores.logprobs_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens without gradient by side, the divergence, the ratio and the k3 estimate of the KL."""
        mask_BT, advantages_BT = experience.batch.loss_mask_BT, experience.token_advantages_BT
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT)
        outside_BT = ~self._inside(experience, scores.logprobs_BT)
        values = {
            "clip_upper_share": outside_BT & (advantages_BT > 0),
            "clip_lower_share": outside_BT & (advantages_BT < 0),
            "divergence": DIVERGENCES[self.divergence](experience.old_logprobs_BT, scores.logprobs_BT),
        }
        named = {name: (value * mask_BT).to(log_ratio_BT.dtype) for name, value in values.items()}
        return {**named, **drift_metrics(log_ratio_BT, mask_BT)}

    def _inside(self, experience: Experience, logprobs_BT: Tensor) -> Tensor:
        old_BT = experience.old_logprobs_BT
        usual = THRESHOLDS[self.divergence]
        return inside_trust_region(
            DIVERGENCES[self.divergence](old_BT, logprobs_BT),
            logprobs_BT - old_BT,
            experience.token_advantages_BT,
            low=usual if self.threshold_low is None else self.threshold_low,
            high=usual if self.threshold_high is None else self.threshold_high,
        )
