from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import MaxRL
from delta_lightning.errors import ConfigError
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards


def test_golden() -> None:
    assert of_rewards(MaxRL(), [1, 0, 0, 1]) == [1, -1, -1, 1]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.4]))
def test_equals_the_reference(seed: int, min_mean: float) -> None:
    g = graded(seed)
    wanted = reference.over_mean(g.rewards, g.groups, g.valid, min_mean=min_mean)
    np.testing.assert_allclose(advantages_of(MaxRL(min_mean=min_mean), g.world).numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("size", [2, 8, 16])
def test_one_right_answer_of_many(size: int) -> None:
    got = of_rewards(MaxRL(), [1.0] + [0.0] * (size - 1))
    assert got[0] == pytest.approx(size - 1)
    assert got[1:] == [-1] * (size - 1)


@pytest.mark.parametrize("rewards", [[0.0] * 4, [1.0] * 4, [-1.0, 0.0, 0.0], [1.0, -1.0], [0.9] * 7])
def test_ties_and_means_that_are_not_positive_give_exactly_zero(rewards: list[float]) -> None:
    assert of_rewards(MaxRL(), rewards) == [0] * len(rewards)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_refuses_a_mean_of_zero(value: float) -> None:
    with pytest.raises(ConfigError, match=r"advantage\.min_mean"):
        MaxRL(min_mean=value)
