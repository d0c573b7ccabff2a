"""GTPO in float64, token by token, written from its formulas and from no code of the library."""

from __future__ import annotations

import math

from delta_lightning.testing.worlds import Scored

Tokens = dict[tuple[int, int], float]


def shaped(world: Scored, *, alpha1: float = 1.0, alpha2: float = 0.1, floor: float = 1e-3) -> list[list[Tokens]]:
    """For each prompt: R of the right answers' and of the wrong answers' tokens, by (row, column)."""
    batch = world.batch
    groups: dict[int, list[list[Tokens]]] = {}
    answers: dict[int, list[list[tuple[int, list[int]]]]] = {}
    for row in range(batch.num_sequences):
        sides = answers.setdefault(int(batch.group_ids_B[row]), [[], []])
        columns = [t for t, m in enumerate(batch.loss_mask_BT[row].tolist()) if m] if batch.valid_B[row] else []
        sides[0 if batch.verdict_rewards_B[row] > 0 else 1].append((row, columns))
    for group, sides in answers.items():
        out: list[Tokens] = [{}, {}]
        for side, members in enumerate(sides):
            for row, columns in members:
                for place, column in enumerate(columns):
                    alive = [(r, c[place]) for r, c in members if len(c) > place]
                    heights = [max(float(world.entropies_BT[at]), floor) for at in alive]
                    mine = max(float(world.entropies_BT[row, column]), floor)
                    if side == 0:
                        share = mine / math.fsum(heights) * len(alive)
                        out[0][row, column] = alpha1 * float(batch.verdict_rewards_B[row]) + alpha2 * share
                    else:
                        share = (1 / mine) / math.fsum(1 / h for h in heights) * len(alive)
                        out[1][row, column] = -alpha1 - alpha2 * share
        groups[group] = [out]
    return [sides for group in groups.values() for sides in group]


def standardised(tokens: Tokens, eps: float) -> Tokens:
    if not tokens:
        return {}
    mean = math.fsum(tokens.values()) / len(tokens)
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in tokens.values()) / len(tokens))
    return {at: (x - mean) / (std + eps) for at, x in tokens.items()}


def advantages(world: Scored, normaliser: str = "side", *, one_sided: str = "zero", eps: float = 1e-4) -> list[list[float]]:
    out = [[0.0] * world.batch.token_ids_BT.shape[1] for _ in range(world.batch.num_sequences)]
    for right, wrong in shaped(world):
        if one_sided == "zero" and not (right and wrong):
            continue
        values = {
            "side": standardised(right, eps) | standardised(wrong, eps),
            "group": standardised(right | wrong, eps),
            "none": right | wrong,
        }[normaliser]
        for (row, column), value in values.items():
            out[row][column] = value
    return out
