"""Work spread evenly over ranks: whole groups change ranks before they are scored and trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from delta_lightning.functional.partitions import evened
from delta_lightning.trainer.collate import Cut, tokens_of
from delta_lightning.trainer.metrics import MetricBook
from delta_lightning.trainer.ranks import Ranks
from delta_lightning.trainer.rollout_state import Numbered, packed, unpacked


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Where each group goes, and how uneven the work is: sums over optimiser steps of the costliest rank and of the mean."""

    places: dict[int, int]
    before: float
    after: float
    mean: float


def balanced(
    rollouts: Sequence[Numbered], cut: Cut, cost: Callable[[int], float], ranks: Ranks, book: MetricBook
) -> list[Numbered]:
    """This rank's rollouts once every rank has about as much work in every optimiser step. Collective.

    Groups stay whole and in their optimiser step; no result depends on the rank that computes it. Only groups that move are
    sent, as a checkpoint would keep them.

    Args:
        rollouts: of this rank. cost: of a row, by its tokens.
    """
    if ranks.size == 1:
        return list(rollouts)
    mine: dict[int, float] = {}
    for group, rollout in rollouts:
        mine[group] = mine.get(group, 0.0) + cost(tokens_of(rollout))
    found = assigned(ranks.all_objects(mine), cut)
    leaving = [(group, rollout) for group, rollout in rollouts if found.places[group] != ranks.rank]
    moved = ranks.all_objects(packed(leaving))
    book.maximum("balance/max_over_mean", found.after / found.mean if found.mean else 1.0)
    book.maximum("balance/max_over_mean_before", found.before / found.mean if found.mean else 1.0)
    book.add("balance/moved_share", len({group for group, _ in leaving}), len(mine))
    arriving = [one for part in moved for one in unpacked(part) if found.places[one[0]] == ranks.rank]
    return [one for one in rollouts if found.places[one[0]] == ranks.rank] + arriving


def assigned(costs: Sequence[dict[int, float]], cut: Cut) -> Assignment:
    """The rank of each group, from the groups of each rank and their costs: the same on every rank."""
    places: dict[int, int] = {}
    before, after, total = 0.0, 0.0, 0.0
    everything = sorted((group, rank) for rank, part in enumerate(costs) for group in part)
    for update in range(cut.updates):
        items = [(group, rank, costs[rank][group]) for group, rank in everything if cut.update_of(group) == update]
        price, old = [item[2] for item in items], [item[1] for item in items]
        new = evened(price, old, len(costs))
        places |= {item[0]: place for item, place in zip(items, new, strict=True)}
        before, after, total = before + _largest(price, old), after + _largest(price, new), total + sum(price)
    return Assignment(places=places, before=before, after=after, mean=total / len(costs))


def _largest(costs: Sequence[float], places: Sequence[int]) -> float:
    sums: dict[int, float] = {}
    for cost, place in zip(costs, places, strict=True):
        sums[place] = sums.get(place, 0.0) + cost
    return max(sums.values(), default=0.0)
