"""Which rows go together: mini-batches of whole groups, and micro-batches of similar length and equal cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def mini_batch_of(group: int, *, num_groups: int, updates: int) -> int:
    """The optimiser step that trains `group`: consecutive groups, the same on any number of ranks."""
    return group * updates // num_groups


def micro_batches(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Splits rows into exactly `count` micro-batches, some possibly empty.

    Rows are ordered by length and cut into runs, so that a padded micro-batch wastes little; the cuts minimise the largest
    padded size (rows times longest row), which is what memory and time follow. Ties are broken by row number.

    Args:
        lengths: tokens of each row, padding excluded.
        count: number of micro-batches, at least 1.

    Returns:
        Row numbers of each micro-batch, longest rows first.
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
    runs = _runs(ordered, low)
    parts = [order[a:b] for a, b in pairwise([0, *runs])]
    return parts + [[] for _ in range(count - len(parts))]


def _runs(ordered: Sequence[int], budget: int) -> list[int]:
    """Ends of the greedy runs of descending `ordered` whose padded size stays within `budget`."""
    ends: list[int] = []
    start = 0
    while start < len(ordered):
        start = min(len(ordered), start + max(1, budget // max(1, ordered[start])))
        ends.append(start)
    return ends


def slices(parts: Sequence[Sequence[int]]) -> list[slice]:
    """The contiguous slices that `parts` become once rows are put in their order."""
    ends, result = 0, []
    for part in parts:
        result.append(slice(ends, ends + len(part)))
        ends += len(part)
    return result
