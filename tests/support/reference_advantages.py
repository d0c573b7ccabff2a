"""Float64 NumPy references of the advantage estimators, from the published formulas and from no code of the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
TIED = 1e-6


def spread(values: Sequence[float], kind: str) -> float:
    """Standard deviation with n - 1 or n."""
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - (1 if kind == "unbiased" else 0)))


def by_group(rewards: Array, groups: Ints, valid: Bools, formula: Callable[[list[int], list[float]], list[float]]) -> Array:
    """`formula(rows, rewards)` for each group with at least two verdicts that differ; 0 elsewhere."""
    advantages = np.zeros(len(rewards))
    for group in set(groups.tolist()):
        rows = [i for i in range(len(rewards)) if groups[i] == group and valid[i]]
        mine = [float(rewards[i]) for i in rows]
        if len(rows) < 2 or max(abs(r - sum(mine) / len(mine)) for r in mine) < TIED:
            continue
        for row, value in zip(rows, formula(rows, mine), strict=True):
            advantages[row] = value
    return advantages


def standardised(rewards: Array, groups: Ints, valid: Bools, *, eps: float = 1e-6, std: str = "unbiased") -> Array:
    """GRPO."""
    return by_group(rewards, groups, valid, lambda rows, r: [(x - sum(r) / len(r)) / (spread(r, std) + eps) for x in r])


def centred(rewards: Array, groups: Ints, valid: Bools) -> Array:
    """Dr. GRPO."""
    return by_group(rewards, groups, valid, lambda rows, r: [x - sum(r) / len(r) for x in r])


def leave_one_out(rewards: Array, groups: Ints, valid: Bools) -> Array:
    """RLOO, by averaging the others."""
    return by_group(
        rewards,
        groups,
        valid,
        lambda rows, r: [r[i] - sum(r[j] for j in range(len(r)) if j != i) / (len(r) - 1) for i in range(len(r))],
    )


def over_mean(rewards: Array, groups: Ints, valid: Bools, *, min_mean: float = 1e-6) -> Array:
    """MaxRL."""

    def formula(rows: list[int], r: list[float]) -> list[float]:
        mean = sum(r) / len(r)
        return [(x - mean) / mean if mean >= min_mean else 0.0 for x in r]

    return by_group(rewards, groups, valid, formula)


def length_weighted(rewards: Array, groups: Ints, valid: Bools, mask: Bools) -> Array:
    """OPO."""

    def formula(rows: list[int], r: list[float]) -> list[float]:
        lengths = [int(mask[i].sum()) for i in rows]
        total = sum(lengths)
        weighted = sum(length * x for length, x in zip(lengths, r, strict=True))
        return [x - (weighted / total if total else sum(r) / len(r)) for x in r]

    return by_group(rewards, groups, valid, formula)


def best_of_k(rewards: Array, groups: Ints, valid: Bools, *, std: str = "none", eps: float = 1e-6) -> Array:
    """Pass@k: largest reward with the answer minus largest without it, for the best answer."""

    def formula(rows: list[int], r: list[float]) -> list[float]:
        scale = 1.0 if std == "none" else spread(r, std) + eps
        values = []
        for i in range(len(r)):
            without = max(r[j] for j in range(len(r)) if j != i)
            margin = max(r) - without
            values.append(margin / scale if margin >= TIED else 0.0)
        return values

    return by_group(rewards, groups, valid, formula)


def rescaled(rewards: Array, groups: Ints, valid: Bools, *, signal: str = "informative") -> Array:
    """GPG."""
    answers = sum(bool(v) for v in valid)
    if signal == "nonzero":
        counted = sum(1 for r, v in zip(rewards, valid, strict=True) if v and r != 0)
    else:
        counted = int(by_group(rewards, groups, valid, lambda rows, r: [1.0] * len(r)).sum())
    return centred(rewards, groups, valid) * (answers / max(counted, 1))


def whitened(
    values: Array, mask: Bools, valid: Bools, *, counted: str = "tokens", std: str = "unbiased", eps: float = 1e-8
) -> Array:
    """Whitening over the batch, the list of counted values written out one by one."""
    listed: list[float] = []
    for row in range(len(values)):
        tokens = int(mask[row].sum()) if valid[row] else 0
        listed += [float(values[row])] * (tokens if counted == "tokens" else min(tokens, 1))
    advantages = np.zeros(len(values))
    if not listed:
        return advantages
    mean = sum(listed) / len(listed)
    squares = sum((x - mean) ** 2 for x in listed)
    variance = squares / max(len(listed) - (1 if std == "unbiased" else 0), 1)
    for row in range(len(values)):
        if valid[row] and mask[row].any() and abs(values[row] - mean) >= TIED:
            advantages[row] = (values[row] - mean) / math.sqrt(variance + eps)
    return advantages


def decoupled(
    components: Array, groups: Ints, valid: Bools, mask: Bools, *, weights: Sequence[float], group_eps: float = 1e-6,
    counted: str = "responses", std: str = "unbiased", eps: float = 1e-8,
) -> Array:  # fmt: skip
    """GDPO."""
    total = np.zeros(len(components))
    for k, weight in enumerate(weights):
        total += weight * standardised(components[:, k], groups, valid, eps=group_eps, std=std)
    return whitened(total, mask, valid, counted=counted, std=std, eps=eps)


def token_baseline(
    rewards: Array, groups: Ints, valid: Bools, mask: Bools, p: Array, sum_p_squared: Array, *, tail: str = "zero"
) -> Array:
    """OTB without eps, response by response and token by token; the n-th trained tokens of a group meet."""
    advantages = np.zeros(mask.shape)
    for group in set(groups.tolist()):
        rows = [i for i in range(len(rewards)) if groups[i] == group and valid[i]]
        mine = [float(rewards[i]) for i in rows]
        if len(rows) < 2 or max(abs(r - sum(mine) / len(mine)) for r in mine) < TIED:
            continue
        columns = {i: [t for t in range(mask.shape[1]) if mask[i, t]] for i in rows}
        for n in range(max(len(c) for c in columns.values())):
            here = [i for i in rows if len(columns[i]) > n]
            gathered = {i: sum(1 - 2 * p[i, t] + sum_p_squared[i, t] for t in columns[i][: n + 1]) for i in here}
            baseline = sum(gathered[i] * rewards[i] for i in here) / sum(gathered.values())
            if len(here) == 1 and tail == "zero":
                baseline = 0.0
            for i in here:
                advantages[i, columns[i][n]] = rewards[i] - baseline
    return advantages
