"""Whitening over a whole rollout step: every rank sums its part, in two passes, so that nothing cancels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from delta_lightning.functional.advantages import TIE
from delta_lightning.functional.checks import check_same_shape

AllSum = Callable[[Tensor], Tensor]
Counted = Literal["tokens", "responses"]


def count_tokens(mask_BT: Tensor, valid_B: Tensor) -> Tensor:
    """Trained tokens of each valid row, [B] float64: long answers weigh more."""
    return mask_BT.sum(1).double() * valid_B


def count_responses(mask_BT: Tensor, valid_B: Tensor) -> Tensor:
    """1 for each valid row with a trained token, else 0; [B] float64."""
    return (mask_BT.any(1) & valid_B).double()


COUNTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"tokens": count_tokens, "responses": count_responses}
LOST: Mapping[str, int] = {"unbiased": 1, "population": 0}  # degrees of freedom that the mean takes


@torch.no_grad()
def whiten(values_B: Tensor, counts_B: Tensor, *, all_sum: AllSum, lost: int = 1, eps: float = 1e-8) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over the rows of all ranks, row b counted `counts_B[b]` times; [B] float64.

    Exactly 0 for rows that count 0 times, and for values within `TIE` of the mean. Two collectives, whatever this rank holds.

    Args:
        values_B: any real numbers where `counts_B` is above 0. counts_B: at least 0.
        all_sum: sum over ranks. lost: 1 for the unbiased variance, 0 for the population's. eps: at least 0.
    """
    check_same_shape(values_B=values_B, counts_B=counts_B)
    counts_B = counts_B.double()
    values_B = torch.where(counts_B > 0, values_B.double(), 0.0)
    count, total = all_sum(torch.stack([counts_B.sum(), (counts_B * values_B).sum()])).unbind()
    deviations_B = values_B - total / count.clamp(min=1)
    squares = all_sum((counts_B * deviations_B.square()).sum())
    variance = squares / (count - lost).clamp(min=1)
    silent_B = (counts_B == 0) | (deviations_B.abs() < TIE)
    # A variance of 0 leaves silent rows only; the floor keeps 0 / 0 out where eps is 0 too.
    return torch.where(silent_B, 0.0, deviations_B / (variance + eps).clamp(min=1e-300).sqrt())
