"""Importance ratios between the trainer's policy and the sampler's, and estimates of their divergence.

d = log pi_old - log mu of a token, nats: pi_old the trainer's policy at the weights that sampled, mu the sampler's.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape
from delta_lightning.functional.policy import kl_k3

Estimator = Literal["k1", "k2", "k3"]


def held_ratio(log_ratio: Tensor, *, clamp: float = 20.0) -> Tensor:
    """exp(log_ratio), |log_ratio| held within `clamp`, of tokens or of whole rows."""
    return log_ratio.clamp(-clamp, clamp).exp()


def within(log_ratio: Tensor, low: float, high: float, *, clamp: float = 20.0) -> Tensor:
    """Whether low <= exp(log_ratio) <= high, bool; low may be 0.

    Compared as logarithms: `exp` may round differently at another place of the same tensor, and a decision must not.
    """
    held = log_ratio.clamp(-clamp, clamp)
    return (held >= (math.log(low) if low > 0 else -math.inf)) & (held <= math.log(high))


def row_sum(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the masked-in tokens of each row, [B, 1] float64; 0 for an empty row."""
    check_same_shape(value_BT=value_BT, mask_BT=mask_BT)
    return torch.where(mask_BT, value_BT.double(), 0.0).sum(1, keepdim=True)


def divergence(log_ratio_BT: Tensor, *, estimator: Estimator, clamp: float = 20.0) -> Tensor:
    """Estimates of KL(mu || pi_old) per token sampled from mu, nats; [B, T] float64.

    k1 = -d is unbiased and signed; k2 = d^2 / 2 is biased and never negative; k3 = exp(d) - 1 - d is unbiased and never
    negative. J. Schulman, "Approximating KL divergence", 2020 (http://joschu.net/blog/kl-approx.html).
    """
    held_BT = log_ratio_BT.double().clamp(-clamp, clamp)
    if estimator == "k1":
        return -held_BT
    return held_BT.square() / 2 if estimator == "k2" else kl_k3(held_BT)


def row_statistic(value_BT: Tensor, mask_BT: Tensor, *, over: Literal["token", "sum", "mean", "max"]) -> Tensor:
    """The values themselves ("token", [B, T]) or their sum, mean or maximum over each row's mask ([B, 1]); 0 for empty rows."""
    check_same_shape(value_BT=value_BT, mask_BT=mask_BT)
    if over == "token":
        return value_BT
    if over == "max":
        highest_B = torch.where(mask_BT, value_BT, -torch.inf).amax(1, keepdim=True)
        return torch.where(mask_BT.any(1, keepdim=True), highest_B, 0.0)
    total_B = row_sum(value_BT, mask_BT)
    return total_B if over == "sum" else total_B / mask_BT.sum(1, keepdim=True).clamp(min=1)
