"""DelTA's coefficients by the four-forward procedure, written from its published description (arXiv 2605.21467, appendix H).

Ours, and plain. For K = 1 the model runs forward four times: one pass for the first centroids, one for gamma, K refinement
passes that compute margins, gates and the next centroids, and a final pass for the coefficients. Each pass works on padded
[B, S, H] float32 temporaries. Nothing is shared between passes except centroids and gamma. Margins are differences of two
squared distances and variances are E[m^2] - E[m]^2, as described.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

EPS = 1e-8
Forward = Callable[[], Iterator[tuple[slice, Tensor, Tensor]]]  # rows, log-probabilities [b, S], LM-head inputs [b, S, H]


@torch.no_grad()
def four_forward(
    forward: Forward, advantages_B: Tensor, mask_BS: Tensor, *, refinements: int = 1, low: float = 0.8, high: float = 1.2
) -> Tensor:
    """Normalised coefficients [B, S]; `forward` runs 3 + K times."""
    weights_BS = advantages_B.abs()[:, None] * mask_BS
    sides_2BS = torch.stack([mask_BS * (advantages_B > 0)[:, None], mask_BS * (advantages_B < 0)[:, None]])

    def features(logprobs_bS: Tensor, hidden_bSH: Tensor) -> Tensor:
        return (1 - logprobs_bS.exp())[..., None] * hidden_bSH.float()

    def margin(v_bSH: Tensor, centres_2H: Tensor) -> Tensor:
        return (v_bSH - centres_2H[1]).square().sum(-1) - (v_bSH - centres_2H[0]).square().sum(-1)

    def gate(margin_bS: Tensor, rows: slice, gammas_2: Tensor) -> Tensor:
        return sum(torch.sigmoid(sign * margin_bS / gammas_2[s]) * sides_2BS[s, rows] for s, sign in enumerate((1, -1)))

    def centre(sums_2H: Tensor, masses_2: Tensor) -> Tensor:
        return sums_2H / masses_2.clamp(min=EPS)[:, None]

    def spread(moments_23: Tensor) -> Tensor:
        count, first, second = moments_23.unbind(1)
        count = count.clamp(min=1)
        return (second / count - (first / count).square()).clamp(min=EPS).sqrt()

    def add_centre(sums: Tensor, masses: Tensor, v_bSH: Tensor, weights_bS: Tensor, rows: slice) -> None:
        for s in range(2):
            side_bS = weights_bS * sides_2BS[s, rows]
            sums[s] += (side_bS[..., None] * v_bSH).sum((0, 1))
            masses[s] += side_bS.sum()

    def add_moments(moments: Tensor, margin_bS: Tensor, rows: slice) -> None:
        for s in range(2):
            mine_bS = sides_2BS[s, rows]
            moments[s] += torch.stack([mine_bS.sum(), (mine_bS * margin_bS).sum(), (mine_bS * margin_bS.square()).sum()])

    width = 0
    sums, masses = None, weights_BS.new_zeros(2)
    for rows, logprobs, hidden in forward():  # pass 1: moments
        v = features(logprobs, hidden)
        if sums is None:
            width = v.shape[-1]
            sums = v.new_zeros(2, width)
        add_centre(sums, masses, v, weights_BS[rows], rows)
    assert sums is not None
    centres = centre(sums, masses)

    moments = weights_BS.new_zeros(2, 3)
    for rows, logprobs, hidden in forward():  # pass 2: gamma
        add_moments(moments, margin(features(logprobs, hidden), centres), rows)
    gammas = spread(moments)

    for _ in range(refinements):  # K passes: gates, next centroids, next gamma (of the margins about the centroids before)
        sums, masses, moments = weights_BS.new_zeros(2, width), weights_BS.new_zeros(2), weights_BS.new_zeros(2, 3)
        for rows, logprobs, hidden in forward():
            v = features(logprobs, hidden)
            margin_bS = margin(v, centres)
            add_moments(moments, margin_bS, rows)
            add_centre(sums, masses, v, weights_BS[rows] * gate(margin_bS, rows, gammas), rows)
        centres, gammas = centre(sums, masses), spread(moments)

    lambdas_BS = torch.empty_like(weights_BS)
    for rows, logprobs, hidden in forward():  # final pass
        alpha_bS = gate(margin(features(logprobs, hidden), centres), rows, gammas)
        lambdas_BS[rows] = (low + (high - low) * alpha_bS) * mask_BS[rows]
    return lambdas_BS * (mask_BS.sum() / lambdas_BS.sum().clamp(min=EPS))
