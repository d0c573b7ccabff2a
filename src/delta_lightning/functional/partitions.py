"""Splitting rows into a given number of parts: runs of similar length, or equal sums."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def padded_runs(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Splits rows into exactly `count` parts, some possibly empty, that waste little when each is padded to its longest row.

    Rows are ordered by length and cut into runs; the cuts minimise the largest padded size (rows times longest row). Ties are
    broken by row number.

    Args:
        lengths: tokens of each row, padding excluded.
        count: number of parts, at least 1.

    Returns:
        Row numbers of each part, longest rows first.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    ordered = [lengths[row] for row in order]
    low, high = 1, max(1, len(ordered) * (ordered[0] if ordered else 1))
    while low < high:
        middle = (low + high) // 2
        if len(_runs(ordered, middle)) <= count and (not ordered or ordered[0] <= middle):
            high = middle
        else:
            low = middle + 1
    parts = [order[a:b] for a, b in pairwise([0, *_runs(ordered, low)])]
    return parts + [[] for _ in range(count - len(parts))]


def _runs(ordered: Sequence[int], budget: int) -> list[int]:
    """Ends of the greedy runs of descending `ordered` whose padded size stays within `budget`."""
    ends: list[int] = []
    start = 0
    while start < len(ordered):
        start = min(len(ordered), start + max(1, budget // max(1, ordered[start])))
        ends.append(start)
    return ends


def equal_sums(costs: Sequence[float], count: int) -> list[list[int]]:
    """Splits items into exactly `count` parts, some possibly empty, whose sums are as equal as a greedy rule makes them.

    Longest processing time first: from the costliest item on, each goes to the part whose sum is smallest so far. The largest
    sum is at most 4/3 - 1/(3 count) times the smallest possible one (Graham 1969). Ties are broken by item and part number.

    Args:
        costs: of each item, at least 0.
        count: number of parts, at least 1.

    Returns:
        Item numbers of each part, costliest items first; the part with the largest sum first.
    """
    parts: list[list[int]] = [[] for _ in range(count)]
    sums = [0.0] * count
    for item in sorted(range(len(costs)), key=lambda item: (-costs[item], item)):
        part = min(range(count), key=lambda number: (sums[number], len(parts[number]), number))
        parts[part].append(item)
        sums[part] += costs[item]
    return [parts[number] for number in sorted(range(count), key=lambda number: (-sums[number], number))]


def evened(costs: Sequence[float], places: Sequence[int], count: int) -> list[int]:
    """New places of items, so that the sums of `count` places are closer to one another, with few items moved.

    As long as it lowers the larger of the two sums, an item of the place with the largest sum moves to the one with the
    smallest, or two items of theirs change places: whatever lowers it most. Ties are broken by number. The largest sum never
    grows, and ends at most one of its own items above the smallest.

    Args:
        costs: of each item, at least 0. places: of each item, 0 to count - 1.
    """
    new = list(places)
    sums = [0.0] * count
    for cost, place in zip(costs, new, strict=True):
        sums[place] += cost
    while True:
        high = max(range(count), key=lambda place: (sums[place], -place))
        low = min(range(count), key=lambda place: (sums[place], place))
        mine = [item for item in range(len(costs)) if new[item] == high]
        theirs = [item for item in range(len(costs)) if new[item] == low]
        options = [(costs[one], one, -1) for one in mine]
        options += [(costs[one] - costs[other], one, other) for one in mine for other in theirs]
        worst = [(max(sums[high] - less, sums[low] + less), one, other) for less, one, other in options]
        best, one, other = min(worst, default=(sums[high], -1, -1))
        # Less by more than rounding: sums of the same items in another order must not go on for ever.
        if high == low or best >= sums[high] * (1 - 1e-9):
            return new
        new[one] = low
        if other >= 0:
            new[other] = high
        for place in (high, low):
            sums[place] = sum(cost for cost, where in zip(costs, new, strict=True) if where == place)
