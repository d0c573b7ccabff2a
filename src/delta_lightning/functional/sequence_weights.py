"""Weights of reductions that count by sequences. Denominators over the step are given, never counted here."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_mean_weights(mask_BT: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1 / tokens of its row where the mask is True; a row is never split, so its count needs no other part of the step."""
    tokens_B = mask_BT.sum(1).clamp(min=1).to(dtype)
    return mask_BT.to(dtype) / tokens_B[:, None]


def per_sequence(sequences: float, *, constant: float = 1.0) -> float:
    """1 / (sequences * constant), 0 if there is no sequence."""
    return 1.0 / (sequences * constant) if sequences > 0 else 0.0
