"""Mini-batches of whole groups; the fewest micro-batches within a budget."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.models import Packed, Padded, RowLayout
from delta_lightning.trainer.batching import fewest, slices
from delta_lightning.trainer.collate import Cut


@pytest.mark.parametrize("layout", [Padded(), Packed()])
@given(lengths=st.lists(st.integers(1, 40), max_size=12), budget=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_as_few_micro_batches_as_the_budget_allows(layout: RowLayout, lengths: list[int], budget: int) -> None:
    count = fewest(lengths, layout, budget)
    allowed = max([budget, *lengths])

    def worst(number: int) -> int:
        return max(layout.cost([lengths[row] for row in part]) for part in layout.cut(lengths, number))

    assert worst(count) <= allowed
    assert all(worst(number) > allowed for number in range(1, count))


def test_a_budget_by_hand() -> None:
    assert fewest([10, 10, 10, 2], Padded(), 20) == 2, "10 + 10, and 10 beside 2 takes 20 positions too"
    assert fewest([10, 10, 10, 2], Packed(), 20) == 2
    assert fewest([8, 1, 1, 1, 1], Packed(), 12) == 1
    assert fewest([8, 1, 1, 1, 1], Padded(), 12) == 2
    assert fewest([50, 3], Packed(), 10) == 2, "a row over the budget goes alone"
    assert fewest([], Padded(), 10) == 1


def test_groups_go_to_updates_in_order_whatever_the_ranks() -> None:
    cut = Cut(num_groups=8, updates=4, micro=1)
    assert [cut.update_of(group) for group in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_slices_are_contiguous() -> None:
    assert slices([[3, 1], [], [0]]) == [slice(0, 2), slice(2, 2), slice(2, 3)]
