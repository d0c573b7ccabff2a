"""Per-token estimates of KL(policy, reference) that a penalty differentiates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape
from delta_lightning.functional.policy import clamped_log_ratio

Estimator = Literal["k1", "k2", "k3", "unbiased"]


def kl_estimate(
    estimator: Estimator, logprobs_BT: Tensor, reference_BT: Tensor, old_BT: Tensor, *, clamp: float = 20.0
) -> Tensor:
    """[B, T], nats, with gradient. With x = log p_ref - log p and r = p / p_old:

    k1 = -x, k2 = x^2 / 2, k3 = e^x - x - 1 (J. Schulman, "Approximating KL divergence", 2020), unbiased = r k3.

    `clamp` bounds x from above in e^x and |log r|; beyond it that factor has no gradient.
    """
    check_same_shape(logprobs_BT=logprobs_BT, reference_BT=reference_BT, old_BT=old_BT)
    log_ratio_BT = reference_BT - logprobs_BT
    if estimator == "k1":
        return -log_ratio_BT
    if estimator == "k2":
        return log_ratio_BT.square() / 2
    # One bound for both terms: bounding e^x alone would leave a gradient of the wrong sign.
    bounded_BT = log_ratio_BT.clamp(max=clamp)
    k3_BT = torch.expm1(bounded_BT) - bounded_BT
    if estimator == "k3":
        return k3_BT
    return clamped_log_ratio(logprobs_BT, old_BT, clamp=clamp).exp() * k3_BT
