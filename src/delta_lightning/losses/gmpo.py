"""GMPO: the geometric mean of token ratios, each clipped first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_sequence import geometric_log_ratio, row_mean
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class GMPO(PolicyLoss):
    """-rho A, rho the geometric mean over the sequence of r = pi / pi_old, with log r bounded where A pushes it away.

    Geometric-mean policy optimisation (Zhao et al., arXiv 2507.20673): log r is at most `log_clip` where A > 0 and at least
    -`log_clip` where A < 0. A is the mean token advantage of the sequence: **only the mean of its credit survives**, so
    token-level credit is refused. Each token carries the sequence's loss. Native reduction: the sequence mean of token means
    (`SequenceMean`). A row without trained tokens has no loss.

    Args:
        log_clip: bound on a token's log r in the direction of the advantage, nats, above 0; 0.4 bounds r by 1.49 and 0.67.
        log_ratio_clamp: bound on |log r| of a token in either direction, nats, above 0; beyond it a token has no gradient.

    Raises:
        ConfigError: a field out of range.
    """

    log_clip: float = 0.4
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        require(self.log_clip > 0, "loss.log_clip", wanted="above 0, nats", got=self.log_clip, remedy="The paper uses 0.4.")
        require(
            self.log_ratio_clamp > 0,
            "loss.log_ratio_clamp",
            wanted="above 0, nats",
            got=self.log_ratio_clamp,
            remedy="The usual value is 20.",
        )

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T]: the sequence's loss on each of its tokens, 0 outside the mask."""
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT, clamp=self.log_ratio_clamp)
        advantages_B1, log_rho_B1 = self._sequence(experience, log_ratio_BT)
        return -log_rho_B1.exp() * advantages_B1 * experience.batch.loss_mask_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens at the bound, rho, and each token's own ratio and k3 estimate of the KL."""
        mask_BT = experience.batch.loss_mask_BT
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT, clamp=self.log_ratio_clamp)
        advantages_B1, log_rho_B1 = self._sequence(experience, log_ratio_BT)
        values = {
            "clip_upper_share": (advantages_B1 > 0) & (log_ratio_BT > self.log_clip),
            "clip_lower_share": (advantages_B1 < 0) & (log_ratio_BT < -self.log_clip),
            "sequence_ratio": log_rho_B1.exp(),
        }
        named = {name: (value * mask_BT).to(log_ratio_BT.dtype) for name, value in values.items()}
        return {**named, **drift_metrics(log_ratio_BT, mask_BT)}

    def erases_token_credit(self) -> bool:
        """Only the sequence mean of credit has an effect."""
        return True

    def _sequence(self, experience: Experience, log_ratio_BT: Tensor) -> tuple[Tensor, Tensor]:
        mask_BT = experience.batch.loss_mask_BT
        advantages_B1 = row_mean(experience.token_advantages_BT.to(log_ratio_BT.dtype), mask_BT)
        return advantages_B1, geometric_log_ratio(log_ratio_BT, advantages_B1, mask_BT, clip=self.log_clip)
