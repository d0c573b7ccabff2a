"""Ratios of whole sequences: GSPO's and GMPO's geometric means, VESPO's reshaped product. Sums over tokens in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape

# The bounds that TRL puts on the log of VESPO's sequence ratio; at both ends the weight is below 1e-15.
VESPO_LOG_RATIO = (math.log(1e-8), 20.0)


def row_sum(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over the trained tokens of each row, [B, 1]; float64 inside, the dtype of `value_BT` outside."""
    check_same_shape(value_BT=value_BT, mask_BT=mask_BT)
    return (value_BT * mask_BT).sum(1, keepdim=True, dtype=torch.float64).to(value_BT.dtype)


def row_mean(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the trained tokens of each row, [B, 1]; 0 for a row without any."""
    check_same_shape(value_BT=value_BT, mask_BT=mask_BT)
    total_B1 = (value_BT * mask_BT).sum(1, keepdim=True, dtype=torch.float64)
    return (total_B1 / mask_BT.sum(1, keepdim=True).clamp(min=1)).to(value_BT.dtype)


def sequence_log_ratio(log_ratio_BT: Tensor, mask_BT: Tensor, *, clamp: float) -> Tensor:
    """GSPO's log s = mean over the row of log r, [B, 1], within +-clamp, nats; without gradient beyond.

    Zheng et al., arXiv 2507.18071.
    """
    return row_mean(log_ratio_BT, mask_BT).clamp(-clamp, clamp)


def geometric_log_ratio(log_ratio_BT: Tensor, advantages_B1: Tensor, mask_BT: Tensor, *, clip: float) -> Tensor:
    """GMPO's log rho, [B, 1]: the mean of log r, each token bounded by `clip` in the direction of the advantage.

    Zhao et al., arXiv 2507.20673: sign(A) min(sign(A) log r, sign(A) clip(log r, -clip, clip)), which is a bound from above
    where A > 0 and one from below where A < 0.
    """
    bounded_BT = torch.where(advantages_B1 > 0, log_ratio_BT.clamp(max=clip), log_ratio_BT.clamp(min=-clip))
    return row_mean(bounded_BT, mask_BT)


def gamma_weight(log_ratio_BT: Tensor, mask_BT: Tensor, *, shape_BT: Tensor, rate_BT: Tensor) -> Tensor:
    """VESPO's phi(w) = e^rate w^shape e^(-rate w), w the product of r over the row; 1 at w = 1, largest at w = shape / rate.

    arXiv 2602.10693; [B, T], since shape and rate may differ within a row.
    """
    low, high = VESPO_LOG_RATIO
    log_w_B1 = row_sum(log_ratio_BT, mask_BT).clamp(low, high)
    return (shape_BT * log_w_B1 - rate_BT * torch.expm1(log_w_B1)).exp()
