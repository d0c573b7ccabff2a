"""KL-Cov: a penalty where advantage and log-probability go together most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from delta_lightning.errors import require
from delta_lightning.functional.policy import clamped_log_ratio
from delta_lightning.functional.policy_covariance import CovarianceCut, above_cut, covariance_cut
from delta_lightning.functional.policy_token import drift_metrics
from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.functional.token_order import significant
from delta_lightning.interfaces import PolicyLoss, StepView
from delta_lightning.types import Experience, Need, RolloutBatch, Statistics, TokenScores


@dataclass(frozen=True, kw_only=True)
class KLCov(PolicyLoss):
    """-r A, plus coefficient |log r| on the tokens with the largest (A - mean A) (log p - mean log p); r = pi / pi_old.

    Cui et al., arXiv 2505.22617: these tokens cost the policy its entropy. There is no clip. The covariance uses the raw
    advantage and the current log p; credit multiplies A in the first term and never the penalty. Means and selection are over
    the whole optimiser step, all micro-batches and ranks (a pass over the mini-batch before each update); released code selects
    within each micro-batch, at least one token in each. Selected are max(1, floor(ratio N)) of N tokens, equal covariances by a
    hash of their place, and never a token whose covariance is not positive: with one advantage for all tokens there is no
    penalty. Covariances are of log p to 16 significant bits (36 in float64), so that rounding decides no tie. At r = 1 the
    penalty has no gradient. A token weighting or a correction multiplies both terms. Native reduction: the token mean.

    Args:
        ratio: share of tokens with the penalty, above 0, at most 1; the paper uses 2e-3 for 7B and 2e-4 for 32B.
        coefficient: weight of |log r| on them, per nat; at least 0.
        log_ratio_clamp: bound on |log r| in r, nats, above 0; beyond it only the penalty has a gradient.

    Raises:
        ConfigError: a field out of range.
    """

    ratio: float = 2e-3
    coefficient: float = 1.0
    log_ratio_clamp: float = 20.0

    def __post_init__(self) -> None:
        require(0 < self.ratio <= 1, "loss.ratio", wanted="above 0, at most 1", got=self.ratio, remedy="The paper uses 2e-3.")
        require(
            0 <= self.coefficient < float("inf"),
            "loss.coefficient",
            wanted="at least 0",
            got=self.coefficient,
            remedy="The paper uses 1.",
        )
        require(
            self.log_ratio_clamp > 0,
            "loss.log_ratio_clamp",
            wanted="above 0, nats",
            got=self.log_ratio_clamp,
            remedy="The usual value is 20.",
        )

    @torch.no_grad()
    def statistics(self, experience: Experience, view: StepView) -> Statistics:
        """Means of A and log p, and the cut of the covariance, over all tokens of the optimiser step."""
        batch = experience.batch
        mask_BT = batch.loss_mask_BT
        logprobs_BT = torch.zeros(mask_BT.shape, dtype=torch.float64, device=mask_BT.device)
        for rows, scores in view.passes():
            logprobs_BT[rows] = significant(scores.logprobs_BT)
        # Gathered in the global order and summed there, so that any number of ranks gets the same last bit.
        gathered = [view.gather(value_BT[mask_BT]) for value_BT in (_raw(experience), logprobs_BT, _order(batch))]
        return Statistics(values=asdict(covariance_cut(*gathered, ratio=self.ratio)))

    def per_token(self, experience: Experience, scores: TokenScores, statistics: Statistics | None) -> Tensor:
        """[B, T], 0 outside the mask."""
        if statistics is None:
            raise ValueError("KLCov needs the statistics of the mini-batch (Need.MINI_BATCH)")
        logprobs_BT, mask_BT = scores.logprobs_BT, experience.batch.loss_mask_BT
        log_ratio_BT = logprobs_BT - experience.old_logprobs_BT
        ratio_BT = clamped_log_ratio(logprobs_BT, experience.old_logprobs_BT, clamp=self.log_ratio_clamp).exp()
        cut = CovarianceCut(**statistics.values)
        chosen_BT = mask_BT & above_cut(_raw(experience), significant(logprobs_BT.detach()), _order(experience.batch), cut)
        surrogate_BT = -ratio_BT * experience.token_advantages_BT.to(ratio_BT.dtype)
        # The penalty is not clamped: it is what brings a token back from beyond.
        return surrogate_BT + self.coefficient * log_ratio_BT.abs() * chosen_BT

    @torch.no_grad()
    def metrics(self, experience: Experience, scores: TokenScores) -> Mapping[str, Tensor]:
        """The ratio and the k3 estimate of the KL."""
        log_ratio_BT = clamped_log_ratio(scores.logprobs_BT, experience.old_logprobs_BT, clamp=self.log_ratio_clamp)
        return drift_metrics(log_ratio_BT, experience.batch.loss_mask_BT)

    def needs(self) -> frozenset[Need]:
        """A pass over the mini-batch."""
        return frozenset({Need.MINI_BATCH})


def _raw(experience: Experience) -> Tensor:
    return experience.raw_advantages_BT.double()


def _order(batch: RolloutBatch) -> Tensor:
    """[B, T], between 0 and 1: a hash of sequence and position. Tokens of probability 1 tie in numbers, and early rows of the
    step must not be the ones that are taken."""
    positions_T = torch.arange(batch.loss_mask_BT.shape[1], device=batch.sequence_ids_B.device)
    return keyed_uniform(batch.sequence_ids_B ^ stable_hash("covariance ties"), positions_T)
