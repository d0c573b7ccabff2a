"""Clip-Cov: a few random tokens among those that would lower the entropy most are not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.random import keyed_uniform
from delta_lightning.functional.selection import smallest_bound
from delta_lightning.interfaces import StepView, TokenWeighting
from delta_lightning.types import Experience, Need, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class ClipCov(TokenWeighting):
    """Weight 0 on max(minimum, floor(share * N)) random tokens whose covariance lies between `low` and `high`; 1 on the others.

    Cui et al., "The entropy mechanism of RL" (arXiv 2505.22617), section Clip-Cov. The covariance of a token is
    (A - mean A)(log pi - mean log pi), under the current policy, with the raw advantage A and means over the N trained tokens.
    Tokens that the loss has clipped already (A > 0, r > 1 + clip_high or A < 0, r < 1 - clip_low) are no candidates. If there
    are fewer candidates, all get 0. Denominators stay. Means, N and the draw are over all micro-batches and ranks of the
    optimiser step; the released code takes them in each micro-batch and drops at least one token of each, so that its true
    share grows as micro-batches shrink. A token's random number is keyed by run seed, step, sequence and position, never by
    order.

    The method pairs it with PPO's loss with clip bounds of 1, so that the covariance is the only clip:
    `ClippedSurrogate(clip_low=1, clip_high=1)`. Costs one forward pass of the mini-batch per update.

    Args:
        share: of the trained tokens of the mini-batch to drop, above 0, at most 1.
        low: candidates have a covariance above this, in units of the advantage times nats.
        high: candidates have a covariance below this; above low.
        clip_low: the loss's `clip_low`, between 0 and 1.
        clip_high: the loss's `clip_high`, at least 0.
        minimum: tokens to drop at least in a mini-batch, if there are that many candidates.

    Raises:
        ConfigError: a field out of range.
    """

    share: float = 2e-4
    low: float = 1.0
    high: float = 5.0
    clip_low: float = 1.0
    clip_high: float = 1.0
    minimum: int = 1

    def __post_init__(self) -> None:
        checks: tuple[tuple[bool, str, str, str], ...] = (
            (0 < self.share <= 1, "share", "above 0, at most 1", "The usual value is 2e-4."),
            (self.low < self.high, "low", "below high", "The usual bounds are 1 and 5."),
            (0 <= self.clip_low <= 1, "clip_low", "between 0 and 1", "Use the loss's clip_low; the method's is 1."),
            (self.clip_high >= 0, "clip_high", "at least 0", "Use the loss's clip_high; the method's is 1."),
            (self.minimum >= 0, "minimum", "at least 0", "The released code uses 1."),
        )
        for holds, name, wanted, remedy in checks:
            require(holds, f"weighting.{name}", wanted=wanted, got=getattr(self, name), remedy=remedy)

    def needs(self) -> frozenset[Need]:
        """A pass over the mini-batch."""
        return frozenset({Need.MINI_BATCH})

    def statistics(self, experience: Experience, view: StepView) -> Statistics | None:
        """Means, the seed of the draws and the largest number drawn that drops a candidate; counts `candidates`, `dropped`."""
        mask_BT = experience.batch.loss_mask_BT
        logprobs_BT = torch.zeros_like(experience.old_logprobs_BT)
        for rows, scores in view.passes():
            logprobs_BT[rows] = scores.logprobs_BT.detach()
        advantages_BT = experience.raw_advantages_BT.to(torch.float64)
        sums = [mask_BT.sum(), advantages_BT[mask_BT].sum(), logprobs_BT[mask_BT].to(torch.float64).sum()]
        tokens, advantage, logprob = view.all_sum(torch.stack([one.to(torch.float64) for one in sums])).unbind()
        drawn_N = view.gather(view.uniform("clip_cov")[mask_BT])
        # One number for all ranks, from which each row's draws follow without the view: the first token's own.
        seed = (drawn_N[0] * 2.0**52).long() if len(drawn_N) else torch.zeros((), dtype=torch.int64, device=mask_BT.device)
        count = tokens.clamp(min=1)
        values = {"mean_advantage": advantage / count, "mean_logprob": logprob / count, "seed": seed}
        candidate_BT = self._candidates(experience, logprobs_BT, values)
        draws_N = view.gather(torch.where(candidate_BT, draws_of(experience, seed), 2.0)[mask_BT])
        candidates = int((draws_N < 1).sum())
        dropped = min(candidates, max(self.minimum, int(self.share * len(draws_N))))
        values["bound"] = smallest_bound(draws_N, dropped)
        values |= {"candidates": torch.tensor(float(candidates)), "dropped": torch.tensor(float(dropped))}
        return Statistics(values=values)

    @torch.no_grad()
    def weights(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T] of 0 and 1, in the dtype of the scores, 0 outside the mask."""
        assert statistics is not None, "the draw is made over the mini-batch, which needs() asks for"
        values = statistics.values
        drawn_BT = draws_of(experience, values["seed"]) <= values["bound"]
        dropped_BT = drawn_BT & self._candidates(experience, scores.logprobs_BT.detach(), dict(values))
        return (experience.batch.loss_mask_BT & ~dropped_BT).to(scores.logprobs_BT.dtype)

    def _candidates(self, experience: Experience, logprobs_BT: Tensor, means: dict[str, Tensor]) -> Tensor:
        """[B, T] bool: tokens of the mask with a covariance in range that the loss has not clipped."""
        away_BT = experience.raw_advantages_BT.to(torch.float64) - means["mean_advantage"]
        covariance_BT = away_BT * (logprobs_BT.to(torch.float64) - means["mean_logprob"])
        ratio_BT = clamped_log_ratio(logprobs_BT, experience.old_logprobs_BT).exp()
        sign_BT = experience.token_advantages_BT
        up_BT = (sign_BT > 0) & (ratio_BT > 1 + self.clip_high)
        down_BT = (sign_BT < 0) & (ratio_BT < 1 - self.clip_low)
        within_BT = (covariance_BT > self.low) & (covariance_BT < self.high)
        return experience.batch.loss_mask_BT & within_BT & ~up_BT & ~down_BT


def draws_of(experience: Experience, seed: Tensor) -> Tensor:
    """[B, T] uniform numbers in (0, 1), keyed by seed, sequence id and position."""
    ids_B = experience.batch.sequence_ids_B
    length = experience.batch.loss_mask_BT.shape[1]
    return keyed_uniform(ids_B ^ seed, torch.arange(length, device=ids_B.device))
