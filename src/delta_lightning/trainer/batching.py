"""Which rows go together, and how many micro-batches a memory budget needs."""

from __future__ import annotations

from collections.abc import Sequence

from delta_lightning.models.layout import RowLayout


def fewest(lengths: Sequence[int], layout: RowLayout, budget: int) -> int:
    """The smallest number of micro-batches none of which costs more than `budget`, at least 1.

    Rows are never split: one that costs more by itself is allowed what it costs, and others beside it as much.

    Args:
        lengths: tokens of each row. layout: what micro-batches cost, and how rows are cut into them. budget: in its unit.
    """
    allowed = max([budget, *(layout.cost([length]) for length in lengths)])
    count = max(1, -(-sum(lengths) // allowed))
    while any(layout.cost([lengths[row] for row in part]) > allowed for part in layout.cut(lengths, count)):
        count += 1
    return count


def slices(parts: Sequence[Sequence[int]]) -> list[slice]:
    """The contiguous slices that `parts` become once rows are put in their order."""
    ends, result = 0, []
    for part in parts:
        result.append(slice(ends, ends + len(part)))
        ends += len(part)
    return result
