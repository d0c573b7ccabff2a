"""Float64 references of corrections, duplicates and soft overlong shaping, as plain loops from the published formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ratio(d: float, clamp: float = 20.0) -> float:
    """exp of a log-ratio that is held within the clamp."""
    return math.exp(max(-clamp, min(clamp, d)))


def truncated(rows: Sequence[Sequence[float]], cap: float) -> list[list[float]]:
    """TIS per token."""
    return [[min(ratio(d), cap) for d in row] for row in rows]


def sequence_truncated(rows: Sequence[Sequence[float]], cap: float) -> list[list[float]]:
    """TIS per sequence."""
    return [[min(ratio(math.fsum(row)), cap)] * len(row) for row in rows]


def masked(rows: Sequence[Sequence[float]], low: float, high: float) -> list[list[float]]:
    """MIS per token; 0 where the token is dropped."""
    return [[r if low <= r <= high else 0.0 for r in (ratio(d) for d in row)] for row in rows]


def sequence_masked(rows: Sequence[Sequence[float]], low: float, high: float) -> list[list[float]]:
    """MIS per sequence; 0 where the sequence is dropped."""
    out = []
    for row in rows:
        product = ratio(math.fsum(row))
        out.append([product if low <= product <= high else 0.0] * len(row))
    return out


def rejected(rows: Sequence[Sequence[float]], estimator: str, over: str, low: float | None, high: float) -> list[list[float]]:
    """1 where the statistic is within the bounds, 0 elsewhere."""
    out = []
    for row in rows:
        values = []
        for d in row:
            d = max(-20.0, min(20.0, d))
            values.append({"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[estimator])
        if over == "token" or not values:
            statistics = values
        else:
            one = {"sum": math.fsum(values), "mean": math.fsum(values) / len(values), "max": max(values)}[over]
            statistics = [one] * len(values)
        out.append([float((low is None or low <= s) and s <= high) for s in statistics])
    return out


def soft_overlong(length: int, max_length: int, buffer: int, factor: float) -> float:
    """The three cases of DAPO's equation."""
    if length <= max_length - buffer:
        return 0.0
    if length <= max_length:
        return factor * ((max_length - buffer) - length) / buffer
    return -factor


def later_copies(answers: Sequence[tuple[int, int, tuple[int, ...], bool]]) -> list[bool]:
    """For (sequence id, group, tokens, judged): whether a judged answer of the group with a lower id has the same tokens."""
    return [
        judged and any(g == group and t == tokens and j and s < sequence for s, g, t, j in answers)
        for sequence, group, tokens, judged in answers
    ]
