"""Float64 references of the policy losses, one sequence at a time, from the published formulas and no code of the library.

Each takes the new and the old log-probabilities and the token advantages of one sequence and returns the loss of each token and
the derivative of their sum by each log-probability, worked out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Row = Sequence[float]
Losses = tuple[list[float], list[float]]
RowLoss = Callable[[Row, Row, Row], Losses]


def bounded(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def reinforce(new: Row, old: Row, advantages: Row) -> Losses:
    return [-a * x for a, x in zip(advantages, new, strict=True)], [-a for a in advantages]


def sapo(new: Row, old: Row, advantages: Row, *, positive: float = 1.0, negative: float = 1.05) -> Losses:
    losses, slopes = [], []
    for x, y, a in zip(new, old, advantages, strict=True):
        tau, r = (positive if a > 0 else negative), math.exp(bounded(x - y, -20, 20))
        losses.append(-a * 4 / tau / (1 + math.exp(-min(tau * (r - 1), 700))))
        slopes.append(-a * r / math.cosh(min(tau * (r - 1) / 2, 300)) ** 2)
    return losses, slopes


def cispo(new: Row, old: Row, advantages: Row, *, cap: float = 5.0, floor: float = 0.0) -> Losses:
    weights = [bounded(math.exp(bounded(x - y, -20, 20)), floor, cap) for x, y in zip(new, old, strict=True)]
    slopes = [-w * a for w, a in zip(weights, advantages, strict=True)]
    return [slope * x for slope, x in zip(slopes, new, strict=True)], slopes


def dppo(
    new: Row, old: Row, advantages: Row, *, kind: str = "tv", low: float = 0.15, high: float = 0.15, cap: float = 20.0
) -> Losses:
    losses, slopes = [], []
    for x, y, a in zip(new, old, advantages, strict=True):
        p, q = math.exp(x), math.exp(y)
        if kind == "tv":
            keep = p - q <= high if a > 0 else p - q >= -low
        else:
            divergence = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
            keep = (divergence <= high or p <= q) if a > 0 else (divergence <= low or p >= q)
        slope = -a * min(p / q, cap) if keep else 0.0
        losses.append(slope * x)
        slopes.append(slope)
    return losses, slopes


def _clipped(ratio: float, advantage: float, low: float, high: float) -> tuple[float, float]:
    """The clipped surrogate of one ratio, and its derivative by the log of that ratio."""
    loss = -min(ratio * advantage, bounded(ratio, 1 - low, 1 + high) * advantage)
    stopped = (advantage > 0 and ratio > 1 + high) or (advantage < 0 and ratio < 1 - low)
    return loss, 0.0 if stopped else -ratio * advantage


def gspo(new: Row, old: Row, advantages: Row, *, low: float = 3e-4, high: float = 4e-4, clamp: float = 10.0) -> Losses:
    tokens = len(new)
    if tokens == 0:
        return [], []
    log_s = sum(x - y for x, y in zip(new, old, strict=True)) / tokens
    loss, slope = _clipped(math.exp(bounded(log_s, -clamp, clamp)), sum(advantages) / tokens, low, high)
    # Each of the row's tokens carries the loss; each log-probability moves the mean by 1 / tokens.
    return [loss] * tokens, [slope if abs(log_s) <= clamp else 0.0] * tokens


def gspo_token(new: Row, old: Row, advantages: Row, *, low: float = 3e-4, high: float = 4e-4, clamp: float = 10.0) -> Losses:
    tokens = len(new)
    if tokens == 0:
        return [], []
    log_s = sum(x - y for x, y in zip(new, old, strict=True)) / tokens
    pairs = [_clipped(math.exp(bounded(log_s, -clamp, clamp)), a, low, high) for a in advantages]
    return [loss for loss, _ in pairs], [slope if abs(log_s) <= clamp else 0.0 for _, slope in pairs]


def gmpo(new: Row, old: Row, advantages: Row, *, clip: float = 0.4, clamp: float = 20.0) -> Losses:
    tokens = len(new)
    if tokens == 0:
        return [], []
    a = sum(advantages) / tokens
    sign = 1 if a > 0 else -1
    logs = [bounded(x - y, -clamp, clamp) for x, y in zip(new, old, strict=True)]
    moved = [sign * min(sign * d, sign * bounded(d, -clip, clip)) for d in logs]
    rho = math.exp(sum(moved) / tokens)
    free = [abs(x - y) <= clamp and sign * (x - y) <= clip for x, y in zip(new, old, strict=True)]
    return [-rho * a] * tokens, [-rho * a if f else 0.0 for f in free]


def vespo(new: Row, old: Row, advantages: Row) -> Losses:
    log_w = bounded(sum(bounded(x - y, -20, 20) for x, y in zip(new, old, strict=True)), math.log(1e-8), 20)
    losses, slopes = [], []
    for x, a in zip(new, advantages, strict=True):
        k, rate = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
        slope = -a * math.exp(rate) * math.exp(log_w) ** k * math.exp(max(-rate * math.exp(log_w), -700))
        losses.append(slope * x)
        slopes.append(slope)
    return losses, slopes


def kl_cov_selection(advantages: Row, logprobs: Row, order: Row, *, ratio: float) -> list[bool]:
    """Which tokens of a whole optimiser step get the penalty."""
    tokens = len(advantages)
    mean_a, mean_l = float(np.mean(np.array(advantages))), float(np.mean(np.array(logprobs)))
    values = [(a - mean_a) * (x - mean_l) for a, x in zip(advantages, logprobs, strict=True)]
    ranked = sorted(range(tokens), key=lambda i: (-values[i], order[i]))[: max(1, int(ratio * tokens))]
    return [i in ranked and values[i] > 1e-15 for i in range(tokens)]


def by_rows(
    function: RowLoss,
    new: NDArray[np.float64],
    old: NDArray[np.float64],
    advantages: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Losses and derivatives of a padded batch, [B, T], 0 outside the mask."""
    losses, slopes = np.zeros(mask.shape), np.zeros(mask.shape)
    for row in range(len(mask)):
        at = [t for t in range(mask.shape[1]) if mask[row, t]]
        values = function(*([float(x[row, t]) for t in at] for x in (new, old, advantages)))
        for t, loss, slope in zip(at, *values, strict=True):
            losses[row, t], slopes[row, t] = loss, slope
    return losses, slopes
