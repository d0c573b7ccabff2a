"""Plain loops for the credit assigners that need no group statistics; lists of rows of trained tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = list[list[float]]


def range_mapped(gates: Rows, advantages: Sequence[float], low: float, high: float) -> Rows:
    """low + (high - low) gate, gate 0 where A = 0, divided by the mean over all tokens."""
    values = [[low + (high - low) * (g if a != 0 else 0.0) for g in row] for row, a in zip(gates, advantages, strict=True)]
    count, mass = sum(len(row) for row in values), math.fsum(v for row in values for v in row)
    return [[v * count / mass for v in row] for row in values]


def top_entropies(entropies: Rows, share: float, denominator: str) -> Rows:
    """1 or N / kept for the ceil(share N) largest, earlier tokens first among equals."""
    flat = [(-h, i, t) for i, row in enumerate(entropies) for t, h in enumerate(row)]
    kept = {(i, t) for _, i, t in sorted(flat)[: math.ceil(share * len(flat) - 1e-9)]}
    factor = len(flat) / len(kept) if denominator == "kept" else 1.0
    return [[factor if (i, t) in kept else 0.0 for t in range(len(row))] for i, row in enumerate(entropies)]


def decay(length: int, direction: str, half_life: float) -> list[float]:
    """Weights of an answer of `length` tokens."""
    return [0.5 ** ((length - 1 - t if direction == "late" else t) / half_life) for t in range(length)]


def trace(length: int, kind: str, factor: float) -> list[float]:
    """c_j by the double sum of the definition, tokens counted from 0."""
    coefficients = []
    for j in range(length):
        total = 0.0
        for t in range(j, length):
            lag = t - j
            total += factor**lag if kind == "recent" else max(factor**lag, factor ** (t - lag))
        coefficients.append(total)
    return coefficients


def mean_one(rows: Rows, scope: str) -> Rows:
    """Divided by the mean of each row, or of all."""
    if scope == "none":
        return rows
    everything = [v for row in rows for v in row]
    overall = math.fsum(everything) / len(everything)
    return [[v / (math.fsum(row) / len(row) if scope == "sequence" else overall) for v in row] for row in rows]
