"""Float64 NumPy references, written from the published formulas in their plainest form and from no code of the library."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def delta(v_ND: Array, advantages_N: Array, *, refinements: int = 1, low: float = 0.8, high: float = 1.2) -> Array:
    """DelTA's coefficients in distance form, token by token; ones where a side is empty."""
    v, a = np.asarray(v_ND, dtype=np.float64), np.asarray(advantages_N, dtype=np.float64)
    positive, negative = [i for i in range(len(a)) if a[i] > 0], [i for i in range(len(a)) if a[i] < 0]
    if not positive or not negative:
        return np.ones(len(a))

    def centroid(side: list[int], weight: Array) -> Array:
        return sum((weight[i] * v[i] for i in side), np.zeros(v.shape[1])) / max(sum(weight[i] for i in side), 1e-8)

    def own_margins(mu_positive: Array, mu_negative: Array) -> Array:
        margin = np.zeros(len(a))
        for i in range(len(a)):
            to_positive, to_negative = ((v[i] - mu_positive) ** 2).sum(), ((v[i] - mu_negative) ** 2).sum()
            margin[i] = to_negative - to_positive if a[i] > 0 else to_positive - to_negative
        return margin

    def temperature(side: list[int], margin: Array) -> float:
        return math.sqrt(max(float(np.var([margin[i] for i in side])), 1e-8))

    def gate(margin: Array, gamma_positive: float, gamma_negative: float) -> Array:
        alpha = np.zeros(len(a))
        for side, gamma in ((positive, gamma_positive), (negative, gamma_negative)):
            for i in side:
                alpha[i] = 1 / (1 + np.exp(-margin[i] / gamma))
        return alpha

    weight = np.abs(a)
    margin = own_margins(centroid(positive, weight), centroid(negative, weight))
    gammas = temperature(positive, margin), temperature(negative, margin)
    for _ in range(refinements):
        alpha = gate(margin, *gammas)
        next_gammas = temperature(positive, margin), temperature(negative, margin)
        margin = own_margins(centroid(positive, weight * alpha), centroid(negative, weight * alpha))
        gammas = next_gammas
    coefficients = low + (high - low) * gate(margin, *gammas)
    return coefficients * len(a) / coefficients.sum()


def surrogate(
    log_ratio: float, advantage: float, *, clip_low: float = 0.2, clip_high: float = 0.28, dual: float | None = 10.0
) -> float:
    """The clipped surrogate of one token."""
    ratio = math.exp(min(20.0, max(-20.0, log_ratio)))
    clipped = min(max(ratio, 1 - clip_low), 1 + clip_high)
    loss = -min(ratio * advantage, clipped * advantage)
    return min(loss, -dual * advantage) if dual is not None and advantage < 0 else loss


def group_advantages(rewards: Array, groups: NDArray[np.int64], valid: NDArray[np.bool_], *, eps: float = 1e-6) -> Array:
    """Standardised rewards, group by group."""
    advantages = np.zeros(len(rewards))
    for group in set(groups.tolist()):
        rows = [i for i in range(len(rewards)) if groups[i] == group and valid[i]]
        if len(rows) < 2:
            continue
        mine = np.array([rewards[i] for i in rows], dtype=np.float64)
        if np.abs(mine - mine.mean()).max() < 1e-6:
            continue
        for i in rows:
            advantages[i] = (rewards[i] - mine.mean()) / (mine.std(ddof=1) + eps)
    return advantages
