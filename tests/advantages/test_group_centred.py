from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import GroupCentred
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards


def test_golden() -> None:
    assert of_rewards(GroupCentred(), [1, 0, 0, 1]) == [0.5, -0.5, -0.5, 0.5]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_reference(seed: int) -> None:
    g = graded(seed)
    got = advantages_of(GroupCentred(), g.world)
    np.testing.assert_allclose(got.numpy(), reference.centred(g.rewards, g.groups, g.valid), atol=1e-12)


@pytest.mark.parametrize("reward", [0.9, 1e6 / 3])
def test_ties_single_verdicts_and_no_verdict_give_exactly_zero(reward: float) -> None:
    assert of_rewards(GroupCentred(), [reward] * 7) == [0] * 7
    assert of_rewards(GroupCentred(), [reward, 5, 5], groups=[1, 2, 2], valid=[True, True, False]) == [0, 0, 0]


def test_difficulty_does_not_scale_it() -> None:
    """One right answer of four: GRPO gives it 1.5, Dr. GRPO its plain deviation."""
    assert of_rewards(GroupCentred(), [1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]
    assert GroupCentred().min_completions() == 2 and not GroupCentred().per_token()
