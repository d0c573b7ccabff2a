"""Token weightings, selections and divergences from their formulas, as loops in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Row = Sequence[float]


def future_kl(log_ratios: Row, mask: Sequence[bool], *, half_life: float, dual_clip: float) -> np.ndarray:
    """F_t = sum over k >= t of gamma^(k - t) log r_k over counted tokens, each term by itself."""
    gamma = 2.0 ** (-1.0 / half_life)
    length = len(log_ratios)
    out = np.zeros(length)
    for t in range(length):
        for k in range(t, length):
            if mask[k] and log_ratios[k] <= math.log(dual_clip):
                out[t] += gamma ** (k - t) * log_ratios[k]
    return out


def fipo(
    log_ratios: Row, advantages: Row, mask: Sequence[bool], *, half_life: float = 32.0, low: float = 1.0, high: float = 1.2,
    dual_clip: float = 10.0, safety: float = 10.0, safe: tuple[float, float] = (0.8, 1.0),
) -> np.ndarray:  # fmt: skip
    """The weights of one row."""
    future = future_kl(log_ratios, mask, half_life=half_life, dual_clip=dual_clip)
    out = np.zeros(len(log_ratios))
    for t, value in enumerate(future):
        if not mask[t]:
            continue
        weight = min(max(math.exp(min(value, 700.0)), low), high)
        if advantages[t] < 0 and math.exp(log_ratios[t]) > safety:
            weight = min(max(weight, safe[0]), safe[1])
        out[t] = weight
    return out


def fipo_keeps(log_ratios: Row, advantages: Row, mask: Sequence[bool], *, dual_clip: float, most: int) -> bool:
    """Whether the row stays."""
    hits = 0
    for change, advantage, trained in zip(log_ratios, advantages, mask, strict=True):
        hits += bool(trained and advantage < 0 and math.exp(change) > dual_clip)
    return hits <= most


def top_share(values: Row, share: float) -> list[bool]:
    """The ceil(share * N) largest; the first of equal ones."""
    count = math.ceil(round(share * len(values), 9))
    chosen = sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]
    return [i in chosen for i in range(len(values))]


def covariances(advantages: Row, logprobs: Row) -> np.ndarray:
    """(A - mean A)(log p - mean log p) of the trained tokens of a whole mini-batch."""
    mean_a, mean_p = sum(advantages) / len(advantages), sum(logprobs) / len(logprobs)
    return np.array([(a - mean_a) * (p - mean_p) for a, p in zip(advantages, logprobs, strict=True)])


def clipped(log_ratio: float, advantage: float, *, low: float, high: float) -> bool:
    """Whether the surrogate's gradient is gone: the clipped branch is the larger loss."""
    ratio = math.exp(log_ratio)
    bounded = min(max(ratio, 1 - low), 1 + high)
    return -advantage * bounded > -advantage * ratio


def kl(estimator: str, logprob: float, reference: float, old: float) -> float:
    """One token's estimate."""
    x = reference - logprob
    k3 = math.exp(x) - x - 1
    return {"k1": -x, "k2": 0.5 * x * x, "k3": k3, "unbiased": math.exp(logprob - old) * k3}[estimator]
