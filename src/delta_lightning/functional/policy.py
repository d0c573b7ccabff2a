"""Policy-gradient surrogates, per token, not reduced."""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape


def clamped_log_ratio(logprobs_BT: Tensor, old_logprobs_BT: Tensor, *, clamp: float = 20.0) -> Tensor:
    """log pi - log pi_old within +-clamp, nats; without gradient beyond. Equal inputs give exactly 0, a ratio of exactly 1."""
    check_same_shape(logprobs_BT=logprobs_BT, old_logprobs_BT=old_logprobs_BT)
    return (logprobs_BT - old_logprobs_BT).clamp(-clamp, clamp)


def clipped_surrogate(
    ratio_BT: Tensor, advantages_BT: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.28, dual_clip: float | None = 10.0
) -> Tensor:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), and for A < 0 at most -dual_clip A; [B, T].

    PPO's clipped surrogate (Schulman et al., arXiv 1707.06347) with DAPO's separate upper bound (Yu et al., arXiv
    2503.14476) and the dual clip of Ye et al. (arXiv 1912.09729), which bounds the loss where r runs away and A < 0.
    Positive coefficients commute with it: loss(k A) = k loss(A).
    """
    check_same_shape(ratio_BT=ratio_BT, advantages_BT=advantages_BT)
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    # Where both are equal `maximum` halves the gradient between them: inside the clip range the halves add up to -A r'.
    loss_BT = torch.maximum(-advantages_BT * ratio_BT, -advantages_BT * clipped_BT)
    if dual_clip is None:
        return loss_BT
    return torch.where(advantages_BT < 0, torch.minimum(loss_BT, -dual_clip * advantages_BT), loss_BT)


def kl_k3(log_ratio_BT: Tensor) -> Tensor:
    """r - 1 - log r, nats: a nonnegative, unbiased estimate of KL(old || new) on tokens sampled from old.

    J. Schulman, "Approximating KL divergence", 2020 (http://joschu.net/blog/kl-approx.html).
    """
    return torch.expm1(log_ratio_BT) - log_ratio_BT
