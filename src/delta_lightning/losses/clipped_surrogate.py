"""PPO's clipped surrogate with DAPO's bounds and a dual clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio, clipped_surrogate, kl_k3
from delta_lightning.interfaces import PolicyLoss
from delta_lightning.types import Experience, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class ClippedSurrogate(PolicyLoss):
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r = pi / pi_old; where A < 0 at most -dual_clip A.

    DAPO's clip-higher (Yu et al., arXiv 2503.14476) of PPO's loss (Schulman et al., arXiv 1707.06347), with the dual clip of
    Ye et al. (arXiv 1912.09729). A is the token advantage: raw advantage times credit, plus shift. The defaults are those of
    DAPO and DelTA.

    Args:
        clip_low: how far r may fall below 1 before a token with A < 0 stops pushing; between 0 and 1.
        clip_high: how far r may rise above 1 before a token with A > 0 stops pushing; at least 0.
        dual_clip: bound on r where A < 0, above 1; null for none.
        log_ratio_clamp: bound on |log r|, nats, above 0; beyond it a token has no gradient.

    Raises:
        ConfigError: a field out of range.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 10.0
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        low, high, dual = self.clip_low, self.clip_high, self.dual_clip
        require(0 <= low <= 1, "loss.clip_low", wanted="between 0 and 1", got=low, remedy="The usual value is 0.2.")
        require(high >= 0, "loss.clip_high", wanted="at least 0", got=high, remedy="DAPO uses 0.28, PPO 0.2.")
        require(
            dual is None or dual > 1,
            "loss.dual_clip",
            wanted="above 1, or null",
            got=dual,
            remedy="The usual value is 10; null turns the dual clip off.",
        )
        require(
            self.log_ratio_clamp > 0,
            "loss.log_ratio_clamp",
            wanted="above 0, nats",
            got=self.log_ratio_clamp,
            remedy="The usual value is 20.",
        )

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        # The token advantage is 0 outside the mask, and so are loss and gradient.
        return clipped_surrogate(
            self._log_ratio(experience, scores).exp(),
            experience.token_advantages_BT.to(scores.logprobs_BT.dtype),
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """Shares of tokens without gradient (at the upper, lower and dual clip), the ratio, and the k3 estimate of the KL."""
        mask_BT, advantages_BT = experience.batch.loss_mask_BT, experience.token_advantages_BT
        log_ratio_BT = self._log_ratio(experience, scores)
        ratio_BT = log_ratio_BT.exp()
        bound = float("inf") if self.dual_clip is None else self.dual_clip
        values = {
            "clip_upper_share": (advantages_BT > 0) & (ratio_BT > 1 + self.clip_high),
            "clip_lower_share": (advantages_BT < 0) & (ratio_BT < 1 - self.clip_low),
            "clip_dual_share": (advantages_BT < 0) & (ratio_BT > bound),
            "ratio": ratio_BT,
            "kl_nats": kl_k3(log_ratio_BT),
        }
        return {name: (value * mask_BT).to(ratio_BT.dtype) for name, value in values.items()}

    def _log_ratio(self, experience: Experience, scores: TokenScores) -> Tensor:
        return clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT, clamp=self.log_ratio_clamp)
