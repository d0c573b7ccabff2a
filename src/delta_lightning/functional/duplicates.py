"""Which sequences of a group repeat another one, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.functional.checks import check_same_shape


def left_aligned(token_ids_BT: Tensor, starts_B: Tensor, lengths_B: Tensor) -> Tensor:
    """The `lengths` tokens of each row from `starts` on, moved to column 0, then -1; [B, longest]."""
    check_same_shape(starts_B=starts_B, lengths_B=lengths_B)
    longest = int(lengths_B.max()) if len(lengths_B) else 0
    columns_T = torch.arange(longest, device=token_ids_BT.device)
    index_BT = (starts_B[:, None] + columns_T).clamp(max=max(token_ids_BT.shape[1] - 1, 0))
    return torch.where(columns_T < lengths_B[:, None], token_ids_BT.gather(1, index_BT), -1)


def repeats(tokens_BT: Tensor, group_ids_B: Tensor, sequence_ids_B: Tensor, eligible_B: Tensor) -> Tensor:
    """[B] bool, True on an eligible row whose group has an eligible row of equal tokens and lower sequence id.

    Exact: tokens are compared, not hashes. The result does not depend on the order of the rows.

    Args:
        tokens_BT: int64, padded alike (`left_aligned`). group_ids_B, sequence_ids_B: int64.
        eligible_B: bool, rows that take part; the others repeat nothing and nothing repeats them.
    """
    check_same_shape(group_ids_B=group_ids_B, sequence_ids_B=sequence_ids_B, eligible_B=eligible_B)
    if not len(group_ids_B):
        return torch.zeros_like(eligible_B)
    keys = torch.cat([eligible_B[:, None].to(tokens_BT.dtype), group_ids_B[:, None], tokens_BT], dim=1)
    classes_C, class_B = torch.unique(keys, dim=0, return_inverse=True)
    lowest_C = sequence_ids_B.new_zeros(len(classes_C)).scatter_reduce(
        0, class_B, sequence_ids_B, reduce="amin", include_self=False
    )
    return eligible_B & (sequence_ids_B != lowest_C[class_B])
