"""Float64 NumPy references of DelTA's ablations, scopes and proxies: token by token, with every vector written out."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def coefficients(
    v: list[Array],
    advantages: list[float],
    *,
    refinements: int = 1,
    low: float = 0.8,
    high: float = 1.2,
    evidence: str = "margin",
    gamma: str = "lagged",
    gate: str = "soft",
    centroid: str = "mean",
    median_steps: int = 10,
    normaliser: str = "mean_one",
) -> Array:
    """One unit's coefficients: ones where a side is empty."""
    a, everyone = [float(x) for x in advantages], range(len(advantages))
    sides = {1: [i for i in everyone if a[i] > 0], -1: [i for i in everyone if a[i] < 0]}
    if not sides[1] or not sides[-1]:
        return np.ones(len(a))

    def sign(i: int) -> int:
        return 1 if a[i] > 0 else -1

    def square(i: int, point: Array) -> float:
        return float(((v[i] - point) ** 2).sum())

    def mean(side: list[int], weight: dict[int, float]) -> Array:
        total = np.zeros_like(v[0])
        for i in side:
            total = total + weight[i] * v[i]
        return total / max(sum(weight[i] for i in side), 1e-8)

    def centre(side: list[int], weight: dict[int, float]) -> Array:
        point = mean(side, weight)
        for _ in range(median_steps if centroid == "geometric_median" else 0):
            squares = {i: square(i, point) for i in side}
            floor = 1e-6 * sum(squares.values()) / len(side)
            point = mean(side, {i: weight[i] / math.sqrt(max(squares[i], floor, 1e-8)) for i in side})
        return point

    def own_values(points: dict[int, Array]) -> dict[int, float]:
        if evidence == "within_side":
            return {i: -square(i, points[sign(i)]) for i in everyone if a[i]}
        return {i: square(i, points[-sign(i)]) - square(i, points[sign(i)]) for i in everyone if a[i]}

    def spread(side: list[int], own: dict[int, float]) -> float:
        middle = sum(own[i] for i in side) / len(side)
        return math.sqrt(max(sum((own[i] - middle) ** 2 for i in side) / len(side), 1e-8))

    def alpha(i: int, own: dict[int, float], gammas: dict[int, float]) -> float:
        if not a[i]:
            return 0.0
        x = own[i] / gammas[sign(i)]
        if gate == "hard":
            return 0.5 if abs(x) <= 1e-6 else float(x > 0)
        return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))

    weight = {i: abs(a[i]) for i in everyone}
    points = {s: centre(side, weight) for s, side in sides.items()}
    own = own_values(points)
    if gamma == "first_distance":
        first = {s: max(sum(square(i, points[s]) for i in side) / len(side), 1e-4) for s, side in sides.items()}
    else:
        first = {s: spread(side, own) for s, side in sides.items()}
    gammas = first
    for _ in range(refinements):
        alphas = [alpha(i, own, gammas) for i in everyone]
        gammas = {s: spread(side, own) for s, side in sides.items()} if gamma == "lagged" else first
        points = {s: centre(side, {i: weight[i] * alphas[i] for i in side}) for s, side in sides.items()}
        own = own_values(points)
    values = np.array([low + (high - low) * alpha(i, own, gammas) for i in everyone])
    return values * len(a) / values.sum() if normaliser == "mean_one" else values


def in_units(v: list[Array], advantages: list[float], units: list[int], **options: object) -> Array:
    """The same within each unit (a group, a rank) for itself."""
    out = np.zeros(len(advantages))
    for unit in set(units):
        which = [i for i in range(len(units)) if units[i] == unit]
        out[which] = coefficients([v[i] for i in which], [advantages[i] for i in which], **options)  # type: ignore[arg-type]
    return out


def softmax(logits: Array) -> Array:
    """p, computed from shifted exponentials."""
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum())


def output_row(h: Array, y: int, head: Array, temperature: float) -> Array:
    """(1 - p) h."""
    return np.asarray((1 - softmax(head @ h / temperature)[y]) * h)


def hidden_gradient(h: Array, y: int, head: Array, temperature: float, k: int | None = None) -> Array:
    """W_y - sum_j p_j W_j, over the k likeliest tokens (the smaller ids of equal ones) with p renormalised."""
    logits = head @ h / temperature
    likeliest = sorted(range(len(logits)), key=lambda j: (-logits[j], j))[: k or len(logits)]
    p = softmax(logits[likeliest])
    total = head[y].copy()
    for share, j in zip(p, likeliest, strict=True):
        total -= share * head[j]
    return np.asarray(total)


def head_gradient(h: Array, y: int, head: Array, temperature: float) -> Array:
    """(e_y - p) outer h, flattened: [V * D]."""
    error = -softmax(head @ h / temperature)
    error[y] += 1
    return np.outer(error, h).ravel()
