"""The gradient of a token's log-probability with respect to the LM head's input, over all or the likeliest tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def hidden_gradient(logits_NV: Tensor, targets_N: Tensor, weight_VD: Tensor) -> Tensor:
    """W_y - sum_j p_j W_j, [N, D], as sum_j (e_y - p)_j W_j, with 1 - p_y as the sum of the other p: it does not cancel.

    Args:
        logits_NV: float32 or float64. targets_N: int64 token ids y. weight_VD: the LM head, in the dtype of the logits.
    """
    errors_NV = torch.softmax(logits_NV, dim=1).neg_().scatter_(1, targets_N[:, None], 0.0)
    errors_NV.scatter_(1, targets_N[:, None], -errors_NV.sum(1, keepdim=True))
    return errors_NV @ weight_VD


def top_k_hidden_gradient(logits_NV: Tensor, targets_N: Tensor, weight_VD: Tensor, k: int) -> Tensor:
    """W_y - sum over the k likeliest j of p~_j W_j, [N, D], p~ being p renormalised among them.

    Computed as sum_j p~_j (W_y - W_j), in which y itself contributes exactly 0. y need not be among the k: W_y stands
    outside the sum. Of equal logits at the edge those of the smaller token ids are taken. With k >= V this is
    `hidden_gradient`.

    Args:
        logits_NV: float32 or float64. targets_N: int64 token ids y. weight_VD: the LM head, any float dtype. k: at least 1.
    """
    likeliest_NK = smallest_ids_of_top_k(logits_NV, k)
    p_NK = torch.softmax(logits_NV.gather(1, likeliest_NK), dim=1)
    differences_NKD = weight_VD[targets_N][:, None].to(p_NK.dtype) - weight_VD[likeliest_NK].to(p_NK.dtype)
    return (p_NK[:, None] @ differences_NKD)[:, 0]


def smallest_ids_of_top_k(logits_NV: Tensor, k: int) -> Tensor:
    """Indices of the k largest logits of each row, ascending, ties broken towards smaller ids; [N, min(k, V)].

    `torch.topk` leaves the choice among equal logits open, and bf16 logits are often equal.
    """
    k = min(k, logits_NV.shape[1])
    edge_N1 = logits_NV.topk(k, dim=1).values[:, -1:]
    above_NV, tied_NV = logits_NV > edge_N1, logits_NV == edge_N1
    room_N1 = k - above_NV.sum(1, keepdim=True)
    chosen_NV = above_NV | (tied_NV & (tied_NV.cumsum(1) <= room_N1))
    return chosen_NV.nonzero()[:, 1].reshape(len(logits_NV), k)
