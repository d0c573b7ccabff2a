"""Ranks and permutations of tokens within units: all tokens, one side, one prompt's group, or one sequence.

Vectors hold one value per token in an order that is the same however the batch is cut; `units_N` are int64, equal for tokens of
one unit. Everything is sorting: no loop over units, no sum, so results are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape

SIGNIFICANT_BITS = {torch.float64: 36}
COARSE_BITS = 16


def order_within(values_N: Tensor, units_N: Tensor) -> Tensor:
    """Indices [N] that list unit after unit, each in ascending order of `values_N`; of equal values the first stays first."""
    check_rank("values_N", values_N, 1)
    check_same_shape(values_N=values_N, units_N=units_N)
    order_N = values_N.argsort(stable=True)
    return order_N[units_N[order_N].argsort(stable=True)]


def top_share(values_N: Tensor, units_N: Tensor, share: float) -> Tensor:
    """[N] bool: the ceil(share * n) largest values of each unit of n tokens; of equal values the first in the order given.

    Args:
        values_N: finite. share: above 0, at most 1, so that every unit keeps at least one token.
    """
    order_N = order_within(-values_N, units_N)
    sorted_N = units_N[order_N]
    firsts_N, ends_N = torch.searchsorted(sorted_N, sorted_N), torch.searchsorted(sorted_N, sorted_N, right=True)
    limits_N = (share * (ends_N - firsts_N).double() - 1e-9).ceil()  # 0.1 * 30 is a little more than 3
    places_N = torch.arange(len(order_N), device=order_N.device) - firsts_N
    kept_N = torch.zeros(values_N.shape, dtype=torch.bool, device=values_N.device)
    kept_N[order_N] = places_N < limits_N
    return kept_N


def permutation_within(uniform_N: Tensor, units_N: Tensor) -> Tensor:
    """Indices [N]: token j gets the value of token `index[j]` of the same unit; every permutation as likely as any other.

    Args:
        uniform_N: independent draws from (0, 1), one per token.
    """
    index_N = torch.empty_like(units_N)
    index_N[order_within(torch.zeros_like(uniform_N), units_N)] = order_within(uniform_N, units_N)
    return index_N


def significant(values: Tensor) -> Tensor:
    """Rounded to 16 significant bits (36 in float64), in float64.

    Values that are equal but for the order of a sum become equal, so that a tie is broken by place and not by rounding.
    """
    mantissa, exponent = torch.frexp(values.double())
    scale = 2.0 ** SIGNIFICANT_BITS.get(values.dtype, COARSE_BITS)
    return torch.ldexp((mantissa * scale).round() / scale, exponent)
