"""Coefficients that follow from a token's place in its answer alone; closed forms, no loop over tokens.

Places are counted over trained tokens: `index_BT` is 1 for the first, T_i for the last of a row with T_i of them. Results are
float64 and mean something on trained tokens only.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def places(mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(index_BT, length_B1): 1, 2, ... over the trained tokens of a row, and their number."""
    index_BT = mask_BT.cumsum(1)
    return index_BT.double(), index_BT[:, -1:].double()


def late(index_BT: Tensor, length_B1: Tensor, half_life: float) -> Tensor:
    """2 ** -((T - t) / half_life): 1 at the last token."""
    return torch.exp2((index_BT - length_B1) / half_life)


def early(index_BT: Tensor, length_B1: Tensor, half_life: float) -> Tensor:
    """2 ** -((t - 1) / half_life): 1 at the first token."""
    return torch.exp2((1 - index_BT) / half_life)


def recent_trace(index_BT: Tensor, length_B1: Tensor, decay: float) -> Tensor:
    """c_j = sum over t >= j of decay ** (t - j) = (1 - decay ** (T - j + 1)) / (1 - decay)."""
    return _geometric(length_B1 - index_BT + 1, decay)


def both_trace(index_BT: Tensor, length_B1: Tensor, decay: float) -> Tensor:
    """c_j = sum over t >= j of max(decay ** (t - j), decay ** (j - 1)).

    The first min(n, j) of the n = T - j + 1 terms are the powers decay ** (t - j), the others the constant decay ** (j - 1).
    """
    terms_BT = length_B1 - index_BT + 1
    powers_BT = torch.minimum(terms_BT, index_BT)
    constant_BT = torch.exp((index_BT - 1) * math.log(decay))
    return _geometric(powers_BT, decay) + (terms_BT - powers_BT) * constant_BT


def _geometric(terms: Tensor, decay: float) -> Tensor:
    """1 + decay + ... of `terms` terms, without cancellation for a decay close to 1."""
    if decay == 1:
        return terms
    return torch.expm1(terms * math.log(decay)) / math.expm1(math.log(decay))
