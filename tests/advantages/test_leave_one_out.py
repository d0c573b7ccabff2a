from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import LeaveOneOut
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards


def test_golden() -> None:
    assert of_rewards(LeaveOneOut(), [1, 0, 0, 1]) == pytest.approx([0.666667, -0.666667, -0.666667, 0.666667], abs=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_reference(seed: int) -> None:
    """Which averages the others of each answer, where the part scales the deviation."""
    g = graded(seed)
    got = advantages_of(LeaveOneOut(), g.world)
    np.testing.assert_allclose(got.numpy(), reference.leave_one_out(g.rewards, g.groups, g.valid), atol=1e-12)


def test_the_number_of_verdicts_counts_not_of_rows() -> None:
    assert of_rewards(LeaveOneOut(), [1, 0, 9], valid=[True, True, False]) == pytest.approx([1, -1, 0])


def test_ties_and_single_verdicts_give_exactly_zero() -> None:
    assert of_rewards(LeaveOneOut(), [0.9] * 5) == [0] * 5
    assert of_rewards(LeaveOneOut(), [1, 0.3, 0.3], groups=[0, 1, 2]) == [0, 0, 0]
    assert LeaveOneOut().min_completions() == 2
