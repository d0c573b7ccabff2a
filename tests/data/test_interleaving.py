"""Fixed shares in every beginning of a sequence."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.data.interleaving import schedule, turns
from delta_lightning.errors import ConfigError


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7))
@settings(max_examples=200)
def test_every_beginning_keeps_tijdemans_bound(counts: list[int]) -> None:
    order, total, k = schedule(counts), sum(counts), len(counts)
    assert len(order) == total and Counter(order) == dict(enumerate(counts))
    bound = 0 if k == 1 else 1 - Fraction(1, 2 * k - 2)
    done = [0] * k
    for length, chosen in enumerate(order, 1):
        done[chosen] += 1
        assert all(abs(done[i] - Fraction(length * counts[i], total)) <= bound for i in range(k))


def test_turns_are_exact_shares_of_the_decimals_that_were_written() -> None:
    assert turns({"a": 0.7, "b": 0.3}) == {"a": 7, "b": 3}
    assert turns({"a": 3, "b": 1}) == {"a": 3, "b": 1} == turns({"a": 6.0, "b": 2.0})
    assert turns({"a": 0.333, "b": 0.667}) == {"a": 333, "b": 667}
    assert turns({"only": 0.1}) == {"only": 1}
    assert schedule([2, 1]) == [0, 1, 0]


@pytest.mark.parametrize("weights", [{"a": 0.0, "b": 1}, {"a": -1}, {"a": float("inf")}, {"a": float("nan"), "b": 1}])
def test_weights_above_zero(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"Mixture\.weights: wanted weights above 0"):
        turns(weights, "Mixture.weights")


def test_shares_that_never_repeat_are_refused() -> None:
    with pytest.raises(ConfigError, match="repeat within 100,000 turns, got 1,000,000"):
        turns({"a": 0.123457, "b": 0.876543})
