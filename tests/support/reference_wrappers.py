"""Wrappers of credit assigners, token by token in float64, written from their definitions and from no code of the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from delta_lightning.testing.worlds import Scored


@dataclass(frozen=True)
class Token:
    """Where a trained token stands and what its response got."""

    row: int
    sequence: int
    group: int
    advantage: float


def tokens_of(world: Scored) -> list[Token]:
    """The trained tokens, rows in order."""
    batch = world.batch
    return [
        Token(row, int(batch.sequence_ids_B[row]), int(batch.group_ids_B[row]), float(world.advantages[row]))
        for row, _ in batch.loss_mask_BT.nonzero().tolist()
    ]


UNITS: dict[str, Callable[[Token], object]] = {
    "batch": lambda token: 0,
    "side": lambda token: (token.advantage > 0) - (token.advantage < 0),
    "group": lambda token: token.group,
    "sequence": lambda token: token.sequence,
}


def members(tokens: Sequence[Token], scope: str) -> list[list[int]]:
    """Lists of token numbers, one per unit."""
    units: dict[object, list[int]] = {}
    for index, token in enumerate(tokens):
        units.setdefault(UNITS[scope](token), []).append(index)
    return list(units.values())


def normalised(scales: Sequence[float], tokens: Sequence[Token], scope: str) -> list[float]:
    """Divided by the unit's mean; ones where it is 0."""
    out = [0.0] * len(scales)
    for unit in members(tokens, scope):
        mean = sum(scales[i] for i in unit) / len(unit)
        for i in unit:
            out[i] = scales[i] / mean if mean > 0 else 1.0
    return out


def flipped(scales: Sequence[float], tokens: Sequence[Token], scope: str) -> list[float]:
    """Reflected about the unit's mean, at least 0."""
    out = [0.0] * len(scales)
    for unit in members(tokens, scope):
        mean = sum(scales[i] for i in unit) / len(unit)
        for i in unit:
            out[i] = max(0.0, 2 * mean - scales[i])
    return out


def chosen(scores: Sequence[float], tokens: Sequence[Token], scope: str, share: float) -> list[bool]:
    """The ceil(share n) largest scores of each unit of n; Python's sort is stable, so the first of ties stay."""
    out = [False] * len(scores)
    for unit in members(tokens, scope):
        count = math.ceil(round(share * len(unit), 9))
        for i in sorted(unit, key=lambda i: -scores[i])[:count]:
            out[i] = True
    return out


def shuffled(values: Sequence[float], draws: Sequence[float], tokens: Sequence[Token], scope: str) -> list[float]:
    """The j-th token of a unit gets the value of the token with its j-th smallest draw."""
    out = [0.0] * len(values)
    for unit in members(tokens, scope):
        for slot, source in zip(unit, sorted(unit, key=lambda i: draws[i]), strict=True):
            out[slot] = values[source]
    return out


def sequence_means(values: Sequence[float], tokens: Sequence[Token]) -> list[float]:
    """The mean over each sequence."""
    out = np.zeros(len(values))
    for unit in members(tokens, "sequence"):
        out[unit] = np.mean([values[i] for i in unit])
    return [float(value) for value in out]
