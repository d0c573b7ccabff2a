from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.functional.advantages import (
    best_margin,
    group_centre,
    group_standardise,
    group_statistics,
    leave_one_out,
    over_mean,
    population_std,
    unbiased_std,
    weighted_baseline,
)
from support import reference


def standardise(rewards: list[float], groups: list[int], valid: list[bool] | None = None, **options: float) -> list[float]:
    mask = torch.tensor([True] * len(rewards) if valid is None else valid)
    return group_standardise(torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups), mask, **options).tolist()


@pytest.mark.parametrize(
    ("correct", "positive", "negative"),
    [(1, 3.75, -0.25), (2, 2.5617, -0.3660), (4, 1.677, -0.559), (8, 0.9682, -0.9682), (12, 0.559, -1.677), (15, 0.25, -3.75)],
)
def test_sixteen_binary_rewards(correct: int, positive: float, negative: float) -> None:
    got = standardise([1.0] * correct + [0.0] * (16 - correct), [3] * 16)
    assert got[0] == pytest.approx(positive, abs=1e-4)
    assert got[-1] == pytest.approx(negative, abs=1e-4)


def test_four_rewards_with_the_unbiased_standard_deviation() -> None:
    assert standardise([1, 0, 0, 1], [0] * 4) == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.9, 0.1, 1e6 / 3])
def test_equal_rewards_give_exactly_zero(reward: float) -> None:
    """Sixteen times 0.9 in float32 has a mean that is not 0.9: without the snap, A = -0.056."""
    rewards_B = torch.full((16,), reward, dtype=torch.float32)
    got = group_standardise(rewards_B, torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.bool))
    assert torch.equal(got, torch.zeros(16))


def test_ties_are_those_below_1e_6() -> None:
    assert standardise([1.0, 1.0 + 1.9e-6], [0, 0]) == [0, 0]
    assert standardise([1.0, 1.0 + 2.1e-6], [0, 0])[1] > 0.4


def test_rows_without_a_verdict_are_in_no_statistic() -> None:
    with_error = standardise([1, 0, 0, 1, float("nan")], [5, 5, 5, 5, 5], [True] * 4 + [False])
    assert with_error == [*standardise([1, 0, 0, 1], [5] * 4), 0.0]


def test_groups_of_one_verdict_say_nothing() -> None:
    assert standardise([1, 0, 0.5, 7], [0, 0, 1, 2], [True, False, True, False]) == [0, 0, 0, 0]


def test_eps_is_added_to_the_standard_deviation() -> None:
    assert standardise([1, -1], [0, 0], eps=1.0) == pytest.approx([1 / (2**0.5 + 1), -1 / (2**0.5 + 1)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_equals_the_reference(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, groups = rng.choice([0.0, 1.0, 0.3, -2.0], size=rows), rng.integers(0, 5, size=rows) * 10**6
    valid = rng.random(rows) < 0.8
    got = group_standardise(torch.from_numpy(rewards), torch.from_numpy(groups), torch.from_numpy(valid))
    np.testing.assert_allclose(got.numpy(), reference.group_advantages(rewards, groups, valid), atol=1e-12)


def test_dtype_is_that_of_the_rewards() -> None:
    for dtype in (torch.float32, torch.float64):
        got = group_standardise(torch.ones(2, dtype=dtype), torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool))
        assert got.dtype == dtype


def test_statistics_of_groups_in_ascending_order() -> None:
    group = group_statistics(
        torch.tensor([3.0, 1.0, 9.0, 5.0]), torch.tensor([7, 2, 2, 7]), torch.tensor([True, True, False, True])
    )
    assert group.index_B.tolist() == [1, 0, 0, 1]
    assert group.count_P.tolist() == [1, 2]
    assert group.mean_P.tolist() == [1, 4]
    assert group.deviations_B.tolist() == [-1, 0, 0, 1]
    assert group.variance_P.tolist() == [0, 2]
    assert group.tied_P.tolist() == [True, False]


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match=r"rewards_B \(2,\), group_ids_B \(3,\)"):
        group_standardise(torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.ones(2, dtype=torch.bool))


def test_both_standard_deviations() -> None:
    rewards_B, groups_B = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 8.0]), torch.tensor([0, 0, 0, 0, 1, 2])
    group = group_statistics(rewards_B, groups_B, torch.tensor([True] * 5 + [False]))
    assert unbiased_std(group).tolist() == pytest.approx([1 / 3**0.5, 0, 0])
    assert population_std(group).tolist() == pytest.approx([0.5, 0, 0])


def test_weights_of_rows_without_a_verdict_are_not_read() -> None:
    rewards_B, valid_B = torch.tensor([1.0, 0.0, 7.0]), torch.tensor([True, True, False])
    got = weighted_baseline(rewards_B, torch.zeros(3, dtype=torch.int64), valid_B, torch.tensor([3, 1, 100]))
    assert got.tolist() == pytest.approx([0.25, -0.75, 0])


@pytest.mark.parametrize("function", [group_centre, group_standardise, leave_one_out, over_mean, best_margin])
def test_a_reward_that_is_not_a_number_does_not_spread(function: Callable[..., torch.Tensor]) -> None:
    """Of a row without a verdict; for every function, in the dtype of the rewards."""
    groups_B, valid_B = torch.zeros(4, dtype=torch.int64), torch.tensor([True, True, True, False])
    got = function(torch.tensor([1.0, 0.0, 0.0, float("nan")]), groups_B, valid_B)
    wanted = function(torch.tensor([1.0, 0.0, 0.0]), groups_B[:3], valid_B[:3])
    assert got.tolist() == [*wanted.tolist(), 0.0] and got[0] > 0
    assert got.dtype == torch.float32
    empty = function(torch.zeros(0), groups_B[:0], valid_B[:0])
    assert empty.shape == (0,)


def test_a_reward_at_the_mean_has_no_sign() -> None:
    """0.1, 0.2 and 0.3 in float32: the one in the middle misses the mean by 2e-9, which would put it on a side."""
    rewards_B, groups_B, valid_B = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int64), torch.ones(3).bool()
    for function in (group_standardise, group_centre, leave_one_out, over_mean):
        got = function(rewards_B, groups_B, valid_B)
        assert got[1] == 0 and got[0] < 0 < got[2], function.__name__


@pytest.mark.parametrize("count", [3, 6, 7])
def test_a_baseline_of_right_answers_only_leaves_them_no_sign(count: int) -> None:
    """Wrong answers out of the loss have no weight: the baseline is 1, and 1 - 1 is not left to the order of a sum."""
    rewards_B, groups_B = torch.tensor([1.0] * (count - 1) + [0.0]), torch.zeros(count, dtype=torch.int64)
    weights_B = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    weights_B[-1] = 0
    got = weighted_baseline(rewards_B, groups_B, torch.ones(count).bool(), weights_B)
    assert got[:-1].tolist() == [0.0] * (count - 1) and got[-1] == -1
