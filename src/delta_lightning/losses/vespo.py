"""VESPO: the whole sequence's ratio, reshaped, as a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_sequence import gamma_weight
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class VESPO(PolicyLoss):
    """-sg(phi(w)) A log p, w the product of pi / pi_old over the sequence, phi(w) = e^rate w^shape e^(-rate w).

    arXiv 2602.10693; formula and defaults as in TRL's `loss_type="vespo"`. phi(1) = 1, and phi is largest at w = shape / rate,
    below 1 where A >= 0 and above 1 where A < 0. It keeps token-level credit; shape and rate go by the sign of each token's A.
    Over thousands of tokens w leaves the neighbourhood of 1 quickly, and phi with it: watch `sequence_weight`. As in TRL a
    token's |log r| counts for at most 20 nats, and log w lies between log 1e-8 and 20. Where TRL corrects for the sampler, it
    multiplies that ratio into w; here `model.correction` multiplies the loss instead. Native reduction: the token mean.

    Args:
        shape_positive: power of w where A >= 0; at least 0, larger damps w < 1 more.
        rate_positive: rate of decay where A >= 0; above 0, larger damps w > 1 more.
        shape_negative: power of w where A < 0; at least 0.
        rate_negative: rate of decay where A < 0; above 0.

    Raises:
        ConfigError: a field out of range.
    """

    shape_positive: float = 2.0
    rate_positive: float = 3.0
    shape_negative: float = 3.0
    rate_negative: float = 2.0

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            shape, rate = getattr(self, f"shape_{side}"), getattr(self, f"rate_{side}")
            usual = "The usual values are 2 and 3 (A >= 0), 3 and 2 (A < 0)."
            require(0 <= shape < float("inf"), f"loss.shape_{side}", wanted="at least 0", got=shape, remedy=usual)
            require(0 < rate < float("inf"), f"loss.rate_{side}", wanted="above 0", got=rate, remedy=usual)

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        advantages_BT = experience.token_advantages_BT.to(scores.logprobs_BT.dtype)
        return -self._weight(experience, scores.logprobs_BT.detach()) * advantages_BT * scores.logprobs_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """phi, the ratio of each token and the k3 estimate of the KL."""
        mask_BT = experience.batch.loss_mask_BT
        weight_BT = self._weight(experience, scores.logprobs_BT)
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT)
        return {"sequence_weight": weight_BT * mask_BT, **drift_metrics(log_ratio_BT, mask_BT)}

    def _weight(self, experience: Experience, logprobs_BT: Tensor) -> Tensor:
        advantages_BT = experience.token_advantages_BT.to(logprobs_BT.dtype)

        def by_sign(positive: float, negative: float) -> Tensor:
            other_BT = torch.full_like(advantages_BT, negative)
            return torch.where(advantages_BT >= 0, torch.full_like(advantages_BT, positive), other_BT)

        return gamma_weight(
            clamped_log_ratio(logprobs_BT, experience.old_logprobs_BT),
            experience.batch.loss_mask_BT,
            shape_BT=by_sign(self.shape_positive, self.shape_negative),
            rate_BT=by_sign(self.rate_positive, self.rate_negative),
        )
