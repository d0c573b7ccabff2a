"""How a set of per-token coefficients is distributed, and how far two sets of them agree.

Everything is float64 and a pure function of its arguments; nothing here depends on the order in which tokens come.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def average_ranks(values_N: Tensor) -> Tensor:
    """Ranks from 1 to N, float64; equal values share the mean of their ranks."""
    _, inverse_N, counts_U = torch.unique(values_N, sorted=True, return_inverse=True, return_counts=True)
    last_U = counts_U.cumsum(0).double()  # rank of the last of each run of equal values
    ranks_U: Tensor = last_U - (counts_U.double() - 1) / 2
    return ranks_U[inverse_N]


def spearman(a_N: Tensor, b_N: Tensor) -> float | None:
    """Spearman's rank correlation, Pearson's correlation of average ranks; None where either side is constant or empty."""
    if a_N.numel() < 2:
        return None
    x, y = (ranks - ranks.mean() for ranks in (average_ranks(a_N), average_ranks(b_N)))
    norm = math.sqrt(float(x.square().sum()) * float(y.square().sum()))
    return None if norm == 0 else max(-1.0, min(1.0, float((x * y).sum()) / norm))


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
