"""Partitions into exactly as many parts as asked for: the best runs there are, and sums as equal as Graham's bound."""

from __future__ import annotations

from itertools import combinations_with_replacement, product

from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.functional.partitions import equal_sums, evened, padded_runs

LENGTHS = st.lists(st.integers(1, 40), max_size=9)


def padded(part: list[int], lengths: list[int]) -> int:
    return len(part) * max((lengths[row] for row in part), default=0)


@given(LENGTHS, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_largest_padded_run_is_the_smallest_possible(lengths: list[int], count: int) -> None:
    parts = padded_runs(lengths, count)
    assert len(parts) == count
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    best = min(
        max(padded(order[a:b], lengths) for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True))
        for cuts in combinations_with_replacement(range(len(order) + 1), count - 1)
    )
    assert max(padded(part, lengths) for part in parts) == best


def test_fewer_rows_than_parts_leaves_empty_ones() -> None:
    assert padded_runs([5, 9], 3) == [[1], [0], []] == equal_sums([5, 9], 3)
    assert padded_runs([], 2) == [[], []] == equal_sums([], 2)


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_the_largest_sum_is_within_the_bound_of_the_smallest_possible(costs: list[int], count: int) -> None:
    parts = equal_sums(costs, count)
    assert len(parts) == count and sorted(item for part in parts for item in part) == list(range(len(costs)))
    sums = [sum(costs[item] for item in part) for part in parts]
    assert sums == sorted(sums, reverse=True)
    best = min(
        max(sum(cost for cost, chosen in zip(costs, where, strict=True) if chosen == part) for part in range(count))
        for where in product(range(count), repeat=len(costs))
    )
    assert sums[0] <= (4 / 3 - 1 / (3 * count)) * best + 1e-9


def test_ties_go_by_number() -> None:
    assert equal_sums([2, 2, 2, 2], 2) == [[0, 2], [1, 3]]
    assert equal_sums([0, 0, 0], 2) == [[0, 2], [1]], "items that cost nothing are spread too"


ITEMS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=24)


@given(ITEMS)
@settings(max_examples=200, deadline=None)
def test_evened_places_are_never_worse_and_leave_no_single_move_that_helps(items: list[tuple[int, int]]) -> None:
    costs, old = [cost for cost, _ in items], [place for _, place in items]
    new = evened(costs, old, 4)

    def sums(places: list[int]) -> list[int]:
        return [sum(cost for cost, where in zip(costs, places, strict=True) if where == place) for place in range(4)]

    before, after = sums(old), sums(new)
    assert max(after) <= max(before) and sum(after) == sum(before)
    high = after.index(max(after))
    smallest = min((cost for cost, where in zip(costs, new, strict=True) if where == high and cost), default=0)
    assert max(after) - min(after) <= smallest or max(after) == min(after)
    assert evened(costs, new, 4) == new, "what is even stays"


def test_few_items_move() -> None:
    assert evened([4, 4, 4, 4], [0, 0, 1, 1], 2) == [0, 0, 1, 1]
    assert evened([5, 1, 1, 1], [0, 0, 1, 1], 2) == [0, 1, 1, 1]
    assert evened([9, 3, 4, 2], [0, 0, 1, 1], 2) == [0, 1, 1, 1], "one place cannot have less than its one item"
    assert evened([6, 5, 3, 2], [0, 0, 1, 1], 2) == [1, 0, 0, 1], "two change places"
