"""KTAE in float64, answer by answer and id by id, written from its formulas and from no code of the library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from delta_lightning.testing.worlds import Scored


def fisher(a: int, b: int, c: int, d: int) -> float:
    """Exact: integers, so that equal probabilities are equal."""
    drawn, right, total = a + b, a + c, a + b + c + d
    chances = [math.comb(right, k) * math.comb(total - right, drawn - k) for k in range(drawn + 1)]
    return sum(chance for chance in chances if chance <= chances[a]) / math.comb(total, drawn)


def entropy(part: float, whole: float) -> float:
    if whole == 0:
        return 0.0
    return -sum(p * math.log2(p) for p in (part / whole, 1 - part / whole) if p > 0)


def gain(a: int, b: int, c: int, d: int) -> float:
    total = a + b + c + d
    return entropy(a + c, total) - (a + b) / total * entropy(a, a + b) - (c + d) / total * entropy(c, c + d)


def effect(a: int, b: int, c: int, d: int) -> float:
    return math.asin(math.sqrt(a / (a + c))) - math.asin(math.sqrt(b / (b + d)))


def value(
    a: int, b: int, c: int, d: int, *, alpha: float = 1.0, beta: float = 1.0, gamma: float = 0.0, frequency: float = 0.0,
    top: float = 1.0,
) -> float:  # fmt: skip
    p = fisher(a, b, c, d)
    score = 0.0 if p == 1 else math.exp(-2 * p)
    x = (alpha * score + beta * gain(a, b, c, d)) / (alpha + beta) * (effect(a, b, c, d) + gamma * frequency)
    return 2 * top * (1 / (1 + math.exp(-max(x, -700.0))) - 0.5)


def frequency(right_uses: int, wrong_uses: int, right_tokens: int, wrong_tokens: int) -> float:
    mean = (right_tokens + wrong_tokens) / 2
    sides = []
    for uses, tokens in ((right_uses, right_tokens), (wrong_uses, wrong_tokens)):
        share, k = uses / tokens, 2.0 * (1 - 0.5 + 0.5 * tokens / mean)
        sides.append(share * (2.0 + 1) / (share + k))
    return sides[0] / (sides[1] + 1e-5) - sides[1] / (sides[0] + 1e-5)


def group_values(right: Sequence[Sequence[int]], wrong: Sequence[Sequence[int]], **options: float) -> dict[int, float]:
    """V by id, for the answers to one prompt; answers without tokens do not exist."""
    right, wrong = [answer for answer in right if answer], [answer for answer in wrong if answer]
    ids = {token for answer in (*right, *wrong) for token in answer}
    if not right or not wrong:
        return dict.fromkeys(ids, 0.0)
    out = {}
    for token in ids:
        a, b = sum(token in answer for answer in right), sum(token in answer for answer in wrong)
        uses = [sum(answer.count(token) for answer in map(list, side)) for side in (right, wrong)]
        tokens = [sum(map(len, side)) for side in (right, wrong)]
        tf = frequency(*uses, *tokens)
        out[token] = value(a, b, len(right) - a, len(wrong) - b, frequency=tf, **options)
    return out


def world_values(world: Scored, *, ignored: Sequence[int], ignore_end: bool, options: Mapping[str, float]) -> list[list[float]]:
    """V at every place of every row, 0 where the mask is False."""
    batch = world.batch
    rows = range(batch.num_sequences)
    mask, ids = batch.loss_mask_BT.tolist(), batch.token_ids_BT.tolist()
    answers = [[i for i, m in zip(ids[row], mask[row], strict=True) if m] if batch.valid_B[row] else [] for row in rows]
    out = []
    for row in rows:
        mates = [other for other in rows if batch.group_ids_B[other] == batch.group_ids_B[row]]
        right = [answers[other] for other in mates if batch.verdict_rewards_B[other] > 0]
        wrong = [answers[other] for other in mates if not batch.verdict_rewards_B[other] > 0]
        values = group_values(right, wrong, **options)
        end = int(batch.attention_mask_BT[row].sum()) - 1
        if not ignore_end or bool(batch.truncated_B[row]):
            end = -1
        out.append([
            values[i] if m and bool(batch.valid_B[row]) and i not in ignored and place != end else 0.0
            for place, (i, m) in enumerate(zip(ids[row], mask[row], strict=True))
        ])  # fmt: skip
    return out
