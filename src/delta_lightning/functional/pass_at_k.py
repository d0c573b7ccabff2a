"""pass@k: the chance that at least one of k answers is right, estimated from n of which c are."""

from __future__ import annotations

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the unbiased estimate of pass@k of one problem (Chen et al., arXiv 2107.03374, equation 1).

    Args:
        n: answers sampled, at least k. c: how many of them are right, 0 .. n. k: at least 1.

    Returns:
        In [0, 1]; 1 where fewer than k are wrong, c / n for k = 1. As a product of c factors, which neither overflows nor
        cancels.

    Raises:
        ValueError: numbers out of range.
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"pass@{k} of {c} right answers among {n}: wanted 1 <= k <= n and 0 <= c <= n")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))
