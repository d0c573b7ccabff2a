"""The order of training prompts: a pure function of a number."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_lightning.data.order import Order, Passes, Weighted

GROUPS = {"small": [3, 5, 9], "large": list(range(100, 140)), "middle": range(50, 60)}
WEIGHTS = {"large": 0.5, "small": 0.2, "middle": 0.3}


def weighted(*, shuffle: bool = True, seed: int = 0) -> Weighted:
    return Weighted(GROUPS, WEIGHTS, seed=seed, shuffle=shuffle)


def group_of(place: int) -> str:
    return next(name for name, places in GROUPS.items() if place in places)


def test_a_pass_holds_each_prompt_once_up_to_its_last_full_step() -> None:
    order = Passes(11, 4, seed=0, shuffle=True)
    first, second = [order.at(n) for n in range(8)], [order.at(n) for n in range(8, 16)]
    assert len(set(first)) == len(set(second)) == 8 and first != second
    assert [Passes(11, 4, seed=0, shuffle=False).at(n) for n in range(10)] == [*range(8), 0, 1]
    assert [Passes(11, 4, seed=1, shuffle=True).at(n) for n in range(8)] != first


@pytest.mark.parametrize("make", [lambda: Passes(11, 4, seed=3, shuffle=True), lambda: weighted(seed=3)])
def test_numbers_may_be_asked_in_any_order(make: type[Order]) -> None:
    """A resumed run begins in the middle, one that samples ahead goes back and forth."""
    order = make()
    forward = [order.at(n) for n in range(200)]
    assert [make().at(n) for n in (150, 3, 199, 64)] == [forward[n] for n in (150, 3, 199, 64)]
    assert [order.at(n) for n in reversed(range(200))] == forward[::-1]


@given(st.integers(0, 400), st.integers(0, 5))
def test_every_beginning_has_the_shares(length: int, seed: int) -> None:
    order = weighted(seed=seed)
    seen = Counter(group_of(order.at(n)) for n in range(length))
    assert all(abs(seen[name] - length * weight) < 1 for name, weight in WEIGHTS.items())


def test_a_data_set_that_is_used_up_begins_again_newly_shuffled() -> None:
    order = weighted()
    places = [order.at(n) for n in range(300)]
    small = [place for place in places if place in GROUPS["small"]]
    assert len(small) == 60
    passes = [tuple(small[start : start + 3]) for start in range(0, 60, 3)]
    assert all(sorted(one) == [3, 5, 9] for one in passes) and len(set(passes)) > 1
    large = [place for place in places if place in GROUPS["large"]]
    assert sorted(large[:40]) == GROUPS["large"] and large[:40] != GROUPS["large"]
    plain = weighted(shuffle=False)
    assert [p for p in (plain.at(n) for n in range(30)) if p in GROUPS["small"]] == [3, 5, 9, 3, 5, 9]


def test_the_names_order_in_the_config_does_not_matter() -> None:
    backwards = Weighted(dict(reversed(GROUPS.items())), dict(reversed(WEIGHTS.items())), seed=0, shuffle=True)
    order = weighted()
    assert [backwards.at(n) for n in range(50)] == [order.at(n) for n in range(50)]
