"""REINFORCE: no ratio, no clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class Reinforce(PolicyLoss):
    """-A log p, nats: the plain policy gradient (Williams, Machine Learning 8, 1992), A the token advantage.

    It is also the loss of GPG (Chu et al., arXiv 2504.02546), whose own advantages are a matter of the estimator. Nothing
    bounds the update and nothing corrects for stale rollouts, so use one update per rollout step, or a few small ones. The
    value is no estimate of the return. Native reduction: the token mean.

    It has no fields.
    """

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        return -experience.token_advantages_BT.to(scores.logprobs_BT.dtype) * scores.logprobs_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """The ratio and the k3 estimate of the KL: how far the policy went, although the loss reads neither."""
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT)
        return drift_metrics(log_ratio_BT, experience.batch.loss_mask_BT)
