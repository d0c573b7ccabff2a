"""Covariance of advantage and log-probability by token, and the tokens where it is largest (arXiv 2505.22617)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape


@dataclass(frozen=True, kw_only=True)
class CovarianceCut:
    """Where the largest covariances begin. 0-dim float64 tensors.

    Attributes:
        advantage, logprob: means over all tokens. covariance: the smallest that is taken. order: the largest order that is
            taken among tokens of exactly that covariance.
    """

    advantage: Tensor
    logprob: Tensor
    covariance: Tensor
    order: Tensor


def covariance(advantages: Tensor, logprobs: Tensor, *, advantage: Tensor, logprob: Tensor) -> Tensor:
    """(A - mean A) (log p - mean log p), float64."""
    check_same_shape(advantages=advantages, logprobs=logprobs)
    return (advantages.double() - advantage) * (logprobs.double() - logprob)


def _mean(value_N: Tensor) -> Tensor:
    # From the smallest value on, so that equal values have exactly themselves as mean, and no covariance made of rounding.
    least = value_N.min()
    return least + (value_N - least).mean()


def covariance_cut(advantages_N: Tensor, logprobs_N: Tensor, order_N: Tensor, *, ratio: float) -> CovarianceCut:
    """The cut above which lie max(1, floor(ratio N)) tokens, all tokens of an optimiser step given in one fixed order.

    `order_N` decides between equal covariances, the smallest first. Without tokens nothing is above the cut.
    """
    check_rank("advantages_N", advantages_N, 1)
    check_same_shape(advantages_N=advantages_N, logprobs_N=logprobs_N, order_N=order_N)
    if advantages_N.numel() == 0:
        zero = torch.zeros((), dtype=torch.float64, device=advantages_N.device)
        return CovarianceCut(advantage=zero, logprob=zero, covariance=zero + float("inf"), order=zero)
    advantage, logprob = _mean(advantages_N.double()), _mean(logprobs_N.double())
    values_N = covariance(advantages_N, logprobs_N, advantage=advantage, logprob=logprob)
    count = max(1, int(ratio * values_N.numel()))
    by_order_N = order_N.argsort()
    last = by_order_N[values_N[by_order_N].argsort(descending=True, stable=True)[count - 1]]
    return CovarianceCut(advantage=advantage, logprob=logprob, covariance=values_N[last], order=order_N[last].double())


def above_cut(advantages: Tensor, logprobs: Tensor, order: Tensor, cut: CovarianceCut) -> Tensor:
    """True for tokens above the cut whose covariance is positive; each token by itself, any shape."""
    values = covariance(advantages, logprobs, advantage=cut.advantage, logprob=cut.logprob)
    taken = (values > cut.covariance) | ((values == cut.covariance) & (order <= cut.order))
    return taken & (values > 0)
