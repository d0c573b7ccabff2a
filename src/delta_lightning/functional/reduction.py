"""Weights that turn per-token losses into one number. Denominators are given, never counted here."""

from __future__ import annotations

import torch
from torch import Tensor


def token_mean_weights(mask_BT: Tensor, *, tokens: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """1 / tokens where the mask is True; all 0 if `tokens` is 0.

    Args:
        mask_BT: bool, trained tokens of this part of the step.
        tokens: trained tokens of the whole step, over all parts and ranks.
        dtype: of the weights.
    """
    return mask_BT.to(dtype) * (1.0 / tokens if tokens > 0 else 0.0)
