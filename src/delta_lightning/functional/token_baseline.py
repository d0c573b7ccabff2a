"""The optimal token baseline: at each position, rewards weighted by the gradient energy that a response has gathered so far."""

from __future__ import annotations

import torch
from torch import Tensor

from delta_lightning.functional.advantages import TIE, group_statistics, snapped_deviations


def gradient_energy(logprobs_BT: Tensor, sum_p_squared_BT: Tensor) -> Tensor:
    """Squared norm of the gradient of log p with respect to the logits, |e_y - p|^2 = 1 - 2 p_y + sum p^2; float64.

    Written as (1 - p_y)^2 + (sum p^2 - p_y^2): no cancellation where p_y is close to 1, and never negative.
    """
    logprobs_BT, sum_p_squared_BT = logprobs_BT.double(), sum_p_squared_BT.double()
    return torch.expm1(logprobs_BT).square() + (sum_p_squared_BT - (2 * logprobs_BT).exp()).clamp(min=0)


@torch.no_grad()
def token_baseline_advantages(
    rewards_B: Tensor,
    group_ids_B: Tensor,
    valid_B: Tensor,
    mask_BT: Tensor,
    energy_BT: Tensor,
    *,
    eps: float = 1e-8,
    keep_tail: bool = False,
) -> Tensor:
    """A = R - B_t, B_t = sum_i W_it R_i / (sum_i W_it + eps), W_it = energy of response i up to its t-th trained token.

    The sums run over the responses of a group that have a t-th trained token. [B, T] float64, 0 outside the mask, in rows
    that are not valid, in groups whose rewards are all equal (`TIE`), and where the formula gives less than `TIE`: of
    responses that are right alike, those that last longest leave a residue of `eps` and of rounding, which is no signal.

    Args:
        energy_BT: at least 0; read where the mask is True. eps: at least 0.
        keep_tail: where only one response of the group has a t-th token, B_t is that response's own reward and A is 0;
            False sets B_t = 0 there, so that A is the reward.
    """
    group = group_statistics(rewards_B, group_ids_B, valid_B)
    mask_BT = mask_BT & valid_B[:, None]
    length = mask_BT.shape[1]
    gathered_N = torch.where(mask_BT, energy_BT.double(), 0.0).cumsum(1)[mask_BT]
    place_N = (group.index_B[:, None] * length + mask_BT.cumsum(1) - 1)[mask_BT]
    row_N = mask_BT.nonzero()[:, 0]
    deviations_N, mean_N = snapped_deviations(group)[row_N], group.mean_P[group.index_B][row_N]
    zeros = gathered_N.new_zeros(len(group.count_P) * length)
    total_N = zeros.index_add(0, place_N, gathered_N)[place_N]
    moment_N = zeros.index_add(0, place_N, gathered_N * deviations_N)[place_N]
    present_N = zeros.index_add(0, place_N, torch.ones_like(gathered_N))[place_N]
    # About the group's mean, so that eps pulls the baseline to the mean and not to 0, and large rewards do not cancel.
    shift_N = torch.where(total_N + eps > 0, moment_N / (total_N + eps).clamp(min=1e-300), 0.0)
    advantages_N = deviations_N - shift_N
    alone_N = present_N == 1
    advantages_N = torch.where(alone_N, 0.0 if keep_tail else deviations_N + mean_N, advantages_N)
    silent_N = group.tied_P[group.index_B][row_N] | (advantages_N.abs() < TIE)
    advantages_N = torch.where(silent_N, 0.0, advantages_N)
    return torch.zeros_like(mask_BT, dtype=torch.float64).masked_scatter(mask_BT, advantages_N)
