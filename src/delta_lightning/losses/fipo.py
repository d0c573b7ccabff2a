"""FIPO: tokens weigh by how far the policy has moved on what follows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.future_kl import beyond_dual_clip, influence_weights
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.interfaces import NOTHING, StepView, TokenWeighting
from delta_lightning.types import Experience, Need, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class FIPO(TokenWeighting):
    """clip(exp F_t, low, high), F_t = sum over k >= t of 2^(-(k - t) / half_life) log r_k, r = pi / pi_old, detached.

    Future-KL influenced policy optimisation (arXiv 2603.19835), formulas as in its released code. Tokens with r_k above
    `dual_clip` are left out of the sum. Where A < 0 and r_t > safety_ratio the weight is clipped to [safe_low, safe_high]. A is
    the token advantage. At r = 1 every weight is exactly 1: with one update per rollout step this part does nothing.

    A sequence with more than `max_dual_clipped` tokens that the dual clip stops leaves the mask, and with it every denominator,
    at each update. That, and `normalise`, cost one forward pass of the mini-batch per update; the released code decides it
    within each micro-batch, whose token count is then its denominator.

    The defaults are those of the 32B run script; its options for start, window and averaging are read by nothing and are no
    fields here. The paper's 7B setting has low 0.8 and safety_ratio 3. The code's clip ratio 0 is low 0, high 10 here.

    Args:
        half_life: tokens after which a token's weight in the sum has halved; above 0. Distance counts all positions of a row.
        low: smallest weight, 0 to 1; 1 is the published "high only".
        high: largest weight, at least 1.
        dual_clip: ratio, above 1, beyond which a token leaves the sum; set it to the loss's `dual_clip`.
        max_dual_clipped: tokens with A < 0 and r > dual_clip that a sequence may have and stay; null keeps all.
        safety_ratio: ratio, at least 1, beyond which tokens with A < 0 are not strengthened.
        safe_low: smallest weight of those, 0 to 1; 1 resets it to 1, which is how the paper's text puts the rule.
        safe_high: largest weight of those, at least safe_low.
        normalise: "none" is the published method. "mini_batch" divides by the mean weight over the trained tokens of the
            mini-batch, all ranks, which keeps the step size; ours: the published weights raise it by up to 20 % at high only.
        log_ratio_clamp: bound on |log r|, nats, above 0.

    Raises:
        ConfigError: a field out of range.
    """

    half_life: float = 32.0
    low: float = 1.0
    high: float = 1.2
    dual_clip: float = 10.0
    max_dual_clipped: int | None = 1
    safety_ratio: float = 10.0
    safe_low: float = 0.8
    safe_high: float = 1.0
    normalise: Literal["none", "mini_batch"] = "none"
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        kept = self.max_dual_clipped
        checks: tuple[tuple[bool, str, str, str], ...] = (
            (self.half_life > 0, "half_life", "above 0, tokens", "The usual value is 32."),
            (0 <= self.low <= 1, "low", "between 0 and 1", "1 for high only, 0.8 for the symmetric range."),
            (1 <= self.high < float("inf"), "high", "at least 1", "The usual value is 1.2."),
            (self.dual_clip > 1, "dual_clip", "above 1", "Use the loss's dual_clip, usually 10."),
            (kept is None or kept >= 0, "max_dual_clipped", "at least 0, or null", "The published value is 1."),
            (self.safety_ratio >= 1, "safety_ratio", "at least 1", "The 32B script uses 10, the 7B setting 3."),
            (0 <= self.safe_low <= 1, "safe_low", "between 0 and 1", "The released code uses 0.8."),
            (self.safe_low <= self.safe_high < float("inf"), "safe_high", "at least safe_low", "The released code uses 1."),
            (self.normalise in ("none", "mini_batch"), "normalise", "none or mini_batch", "The published method is none."),
            (self.log_ratio_clamp > 0, "log_ratio_clamp", "above 0, nats", "The usual value is 20."),
        )
        for holds, name, wanted, remedy in checks:
            require(holds, f"weighting.{name}", wanted=wanted, got=getattr(self, name), remedy=remedy)

    def needs(self) -> frozenset[Need]:
        """A pass over the mini-batch where sequences may be dropped or weights are normalised."""
        passes = self.max_dual_clipped is not None or self.normalise != "none"
        return frozenset({Need.MINI_BATCH}) if passes else NOTHING

    def statistics(self, experience: Experience, view: StepView) -> Statistics | None:
        """Which sequences stay; `mean_weight` over their tokens; `dropped_share` of the sequences that had trained tokens."""
        mask_BT = experience.batch.loss_mask_BT
        kept_BT = mask_BT.clone()
        sums = torch.zeros(4, dtype=torch.float64, device=mask_BT.device)  # tokens, weights, sequences before and after
        for rows, scores in view.passes():
            mine = experience.rows(rows)
            log_ratio_BT, within_BT = self._log_ratio(mine, scores), mask_BT[rows]
            if self.max_dual_clipped is not None:
                hits_B = beyond_dual_clip(log_ratio_BT, mine.token_advantages_BT, within_BT, dual_clip=self.dual_clip)
                kept_BT[rows] = within_BT & (hits_B <= self.max_dual_clipped)[:, None]
            weights_BT = self._influence(log_ratio_BT, mine) * kept_BT[rows]
            counts = [kept_BT[rows].sum(), weights_BT.sum(), within_BT.any(1).sum(), kept_BT[rows].any(1).sum()]
            sums += torch.stack([count.to(torch.float64) for count in counts])
        tokens, weight, before, after = view.all_sum(sums).unbind()
        mean = torch.where(weight > 0, weight / tokens.clamp(min=1), 1.0)
        values = {"mean_weight": mean, "dropped_share": (before - after) / before.clamp(min=1)}
        return Statistics(values=values, keep_BT=None if self.max_dual_clipped is None else kept_BT)

    @torch.no_grad()
    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], in the dtype of the scores, 0 outside the mask."""
        weights_BT = self._influence(self._log_ratio(experience, scores), experience)
        if self.normalise == "mini_batch":
            assert statistics is not None, "FIPO normalises by statistics of the mini-batch, which needs() asks for"
            weights_BT = weights_BT / statistics.values["mean_weight"]
        return weights_BT.to(scores.logprobs_BT.dtype)

    def _log_ratio(self, experience: Experience, scores: TokenScores) -> Tensor:
        return clamped_log_ratio(scores.logprobs_BT.detach(), experience.old_logprobs_BT, clamp=self.log_ratio_clamp)

    def _influence(self, log_ratio_BT: Tensor, experience: Experience) -> Tensor:
        return influence_weights(
            log_ratio_BT,
            experience.token_advantages_BT,
            experience.batch.loss_mask_BT,
            half_life=self.half_life,
            low=self.low,
            high=self.high,
            dual_clip=self.dual_clip,
            safety_ratio=self.safety_ratio,
            safe_low=self.safe_low,
            safe_high=self.safe_high,
        )
