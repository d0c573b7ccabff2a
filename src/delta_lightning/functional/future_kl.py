"""Discounted sums over the rest of a row, and the weights that FIPO takes from them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape


def discounted_suffix_sums(values_BT: Tensor, *, decay: float, block: int = 64) -> Tensor:
    """F_t = sum over k >= t of decay^(k - t) v_k, that is F_t = v_t + decay F_(t+1); [B, T] in float64.

    T x block multiplications a row and no loop over T: each block of columns is multiplied with one triangular matrix of powers
    of the decay, and what enters a block from its right is the same problem on the first sums of the blocks, T / block of them,
    with decay^block. All powers are at most 1, so nothing overflows whatever T. Float64 also keeps reduced-precision matrix
    products (TF32) out.

    Args:
        values_BT: finite. decay: between 0 and 1.
        block: columns that one product handles, at least 2; without influence beyond rounding.
    """
    check_rank("values_BT", values_BT, 2)
    if block < 2:
        raise ValueError(f"block: wanted at least 2, got {block}")
    values_BT = values_BT.to(torch.float64)
    rows, length = values_BT.shape
    width = min(block, length)
    steps = torch.arange(width, device=values_BT.device)
    ahead_KK = steps[:, None] - steps[None, :]  # how far column k lies after column t
    powers_KK = torch.where(ahead_KK >= 0, torch.pow(decay, ahead_KK.clamp(min=0).to(torch.float64)), 0.0)
    if length <= block:
        return values_BT @ powers_KK
    blocks = math.ceil(length / block)
    cut_BCK = torch.nn.functional.pad(values_BT, (0, blocks * block - length)).view(rows, blocks, block)
    inner_BCK = cut_BCK @ powers_KK
    starts_BC = discounted_suffix_sums(inner_BCK[:, :, 0], decay=decay**block, block=block)
    carry_BC = torch.nn.functional.pad(starts_BC[:, 1:], (0, 1))
    fade_K = torch.pow(decay, (block - steps).to(torch.float64))
    return (inner_BCK + carry_BC[:, :, None] * fade_K).view(rows, blocks * block)[:, :length]


def influence_weights(
    log_ratio_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    half_life: float = 32.0,
    low: float = 1.0,
    high: float = 1.2,
    dual_clip: float = 10.0,
    safety_ratio: float = 10.0,
    safe_low: float = 0.8,
    safe_high: float = 1.0,
) -> Tensor:
    """FIPO's weights (arXiv 2603.19835), [B, T] in float64, detached; 0 outside the mask, exactly 1 where all log-ratios are 0.

    With d the log-ratio and decay = 2^(-1 / half_life): F_t = sum over k >= t of decay^(k - t) d_k over the tokens of the mask
    with d_k <= log dual_clip; weight = clip(exp F_t, low, high), and where A < 0 and exp d_t > safety_ratio that weight is
    clipped once more, to [safe_low, safe_high]. Distance counts columns, so tokens inside the mask stay as far apart as they
    are in the row when others between them leave the mask.
    """
    check_same_shape(log_ratio_BT=log_ratio_BT, advantages_BT=advantages_BT, mask_BT=mask_BT)
    change_BT = log_ratio_BT.detach().to(torch.float64)
    counted_BT = mask_BT & (change_BT <= math.log(dual_clip))
    future_BT = discounted_suffix_sums(torch.where(counted_BT, change_BT, 0.0), decay=2.0 ** (-1.0 / half_life))
    weights_BT = future_BT.exp().clamp(low, high)
    runaway_BT = (advantages_BT < 0) & (change_BT > math.log(safety_ratio))
    return torch.where(runaway_BT, weights_BT.clamp(safe_low, safe_high), weights_BT) * mask_BT


def beyond_dual_clip(log_ratio_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, *, dual_clip: float) -> Tensor:
    """[B]: tokens of each row whose gradient the dual clip removes, those with A < 0 and a ratio above `dual_clip`."""
    check_same_shape(log_ratio_BT=log_ratio_BT, advantages_BT=advantages_BT, mask_BT=mask_BT)
    hit_BT = mask_BT & (advantages_BT < 0) & (log_ratio_BT.detach() > math.log(dual_clip))
    return hit_BT.sum(1)
