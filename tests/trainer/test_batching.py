"""Micro-batches: a partition into exactly as many as asked for, with the best possible largest one."""

from __future__ import annotations

from itertools import combinations_with_replacement

from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.trainer.batching import micro_batches, mini_batch_of, slices

LENGTHS = st.lists(st.integers(1, 40), max_size=9)


def padded(part: list[int], lengths: list[int]) -> int:
    return len(part) * max((lengths[row] for row in part), default=0)


@given(LENGTHS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_largest_padded_micro_batch_is_the_smallest_possible(lengths: list[int], count: int) -> None:
    parts = micro_batches(lengths, count)
    assert len(parts) == count
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    best = min(
        max(padded(order[a:b], lengths) for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True))
        for cuts in combinations_with_replacement(range(len(order) + 1), count - 1)
    )
    assert max(padded(part, lengths) for part in parts) == best


def test_fewer_rows_than_micro_batches_leaves_empty_ones() -> None:
    assert micro_batches([5, 9], 3) == [[1], [0], []]
    assert micro_batches([], 2) == [[], []]


def test_groups_go_to_updates_in_order_whatever_the_ranks() -> None:
    assert [mini_batch_of(g, num_groups=8, updates=4) for g in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_slices_are_contiguous() -> None:
    assert slices([[3, 1], [], [0]]) == [slice(0, 2), slice(2, 2), slice(2, 3)]
