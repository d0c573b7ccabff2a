"""How a set of per-token coefficients is distributed, and how far two sets of them agree.

Everything is float64 and a pure function of its arguments; nothing here depends on the order in which tokens come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
SETTLED_BITS = 20  # about six digits: float32 holds 24 bits, of which sums and exponentials spoil a few


def average_ranks(values_N: Tensor) -> Tensor:
    """Ranks from 1 to N, float64; equal values share the mean of their ranks."""
    _, inverse_N, counts_U = torch.unique(values_N, sorted=True, return_inverse=True, return_counts=True)
    last_U = counts_U.cumsum(0).double()  # rank of the last of each run of equal values
    ranks_U: Tensor = last_U - (counts_U.double() - 1) / 2
    return ranks_U[inverse_N]


def settled(values_N: Tensor) -> Tensor:
    """Values whose first 20 bits say all: what rounding alone parts becomes equal, so that ranks do not rank rounding; float64.

    All become the smallest where they span no more than 2^-20 of the largest magnitude: rounding to bits would part a
    constant that lies between two grid points.
    """
    values_N = values_N.double()
    if not values_N.numel():
        return values_N
    smallest, largest = values_N.aminmax()
    if float(largest - smallest) <= float(values_N.abs().max()) * 2.0**-SETTLED_BITS:
        return smallest.expand_as(values_N)
    mantissa_N, exponent_N = torch.frexp(values_N)
    return torch.ldexp((mantissa_N * 2.0**SETTLED_BITS).round(), exponent_N - SETTLED_BITS)


def spearman(a_N: Tensor, b_N: Tensor) -> float | None:
    """Spearman's rank correlation, Pearson's correlation of average ranks; None where either side is constant or empty."""
    return rank_correlations([a_N, b_N])[0][1]


def rank_correlations(values: Sequence[Tensor]) -> list[list[float | None]]:
    """`spearman` of every pair of K vectors, [K][K]; each vector is ranked once. None beside a constant, itself included."""
    centred = [ranks - ranks.mean() for ranks in map(average_ranks, values)]
    lengths = [math.sqrt(float(x.square().sum())) for x in centred]
    found: list[list[float | None]] = [[None] * len(centred) for _ in centred]
    for i, x in enumerate(centred):
        for j in range(i, len(centred)):
            if lengths[i] > 0 and lengths[j] > 0:
                angle = float((x * centred[j]).sum()) / (lengths[i] * lengths[j])
                found[i][j] = found[j][i] = 1.0 if i == j else max(-1.0, min(1.0, angle))
    return found


def effective_share(values_N: Tensor) -> float | None:
    """Kish's effective sample size as a share of N: (sum s)^2 / (N sum s^2), in [0, 1]; None if all are 0 or there are none.

    1 for equal values; k / N where k equal values are not 0 and the others are.
    """
    values_N = values_N.double()
    square = float(values_N.square().sum())
    return None if square == 0 else float(values_N.sum()) ** 2 / (values_N.numel() * square)


def cosines(gram_KK: Tensor) -> list[list[float | None]]:
    """Cosines of K vectors from their inner products, [K, K]; None beside a vector of length 0, exactly 1 on the diagonal."""
    gram = gram_KK.double().tolist()
    lengths = [math.sqrt(max(0.0, row[k])) for k, row in enumerate(gram)]

    def one(i: int, j: int) -> float | None:
        if lengths[i] == 0 or lengths[j] == 0:
            return None
        return 1.0 if i == j else max(-1.0, min(1.0, gram[i][j] / (lengths[i] * lengths[j])))

    return [[one(i, j) for j in range(len(gram))] for i in range(len(gram))]


def quantiles(values_N: Tensor, shares: tuple[float, ...] = QUANTILES) -> list[float]:
    """Quantiles by linear interpolation between order statistics (NumPy's default), of any number of values above 0."""
    ordered_N = values_N.double().sort().values
    found = []
    for share in shares:
        place = share * (len(ordered_N) - 1)
        below = min(math.floor(place), len(ordered_N) - 1)
        above = min(below + 1, len(ordered_N) - 1)
        low, high = float(ordered_N[below]), float(ordered_N[above])
        found.append(low + (high - low) * (place - below))
    return found


def histogram(values_N: Tensor, edges: list[float]) -> list[int]:
    """Counts between consecutive ascending edges; the last bin holds its upper edge. Values outside are in no bin."""
    values_N = values_N.double()
    edges_E = torch.tensor(edges, dtype=torch.float64, device=values_N.device)
    inside_N = values_N[(values_N >= edges_E[0]) & (values_N <= edges_E[-1])]
    bins_N = (torch.searchsorted(edges_E, inside_N, right=True) - 1).clamp(0, len(edges) - 2)
    return [int(count) for count in torch.bincount(bins_N, minlength=len(edges) - 1)]
