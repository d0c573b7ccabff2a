"""Selection of tokens by rank, with counts and ties that do not depend on how a batch is cut."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_rank, check_same_shape


def token_keys(sequence_ids_B: Tensor, length: int) -> Tensor:
    """[B, length] int64: each position's place in the global order of sequences and positions."""
    return (sequence_ids_B[:, None] << 32) + torch.arange(length, device=sequence_ids_B.device)


def share_count(share: float, total: int) -> int:
    """ceil(share * total), so that a share above 0 of at least one token is at least one token."""
    return min(total, math.ceil(share * total - 1e-9))  # 0.1 * 30 is a little more than 3


def top_mask(values_N: Tensor, count: int) -> Tensor:
    """[N] bool: the `count` largest values; of equal ones the first in the order given."""
    check_rank("values_N", values_N, 1)
    chosen_N = torch.zeros(values_N.shape, dtype=torch.bool, device=values_N.device)
    chosen_N[values_N.argsort(descending=True, stable=True)[:count]] = True
    return chosen_N


def top_bound(values_N: Tensor, keys_N: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same selection as two 0-dim tensors (value, key): selected is a larger value, or an equal one with a key not above.

    Args:
        values_N: finite. keys_N: int64, ascending, at least 0. count: 0 selects nothing.
    """
    check_same_shape(values_N=values_N, keys_N=keys_N)
    if count == 0:
        return values_N.new_tensor(math.inf), keys_N.new_tensor(-1)
    last = values_N.argsort(descending=True, stable=True)[count - 1]
    return values_N[last], keys_N[last]


def within_bound(values: Tensor, keys: Tensor, bound: tuple[Tensor, Tensor]) -> Tensor:
    """Which values a bound of `top_bound` selects, elementwise, any shape."""
    value, key = bound
    return (values > value) | ((values == value) & (keys <= key))


def smallest_bound(values_N: Tensor, count: int) -> Tensor:
    """The `count`-th smallest value, 0-dim; minus infinity if `count` is 0."""
    check_rank("values_N", values_N, 1)
    if count == 0:
        return values_N.new_tensor(-math.inf)
    return values_N.sort().values[count - 1]
