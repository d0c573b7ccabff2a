from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import GroupCentred, OptimalBaseline
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards


def test_golden() -> None:
    got = of_rewards(OptimalBaseline(), [1, 0, 0, 1], lengths=[2, 4, 4, 10])
    assert got == pytest.approx([0.4, -0.6, -0.6, 0.4], abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_reference(seed: int) -> None:
    g = graded(seed)
    wanted = reference.length_weighted(g.rewards, g.groups, g.valid, g.mask)
    np.testing.assert_allclose(advantages_of(OptimalBaseline(), g.world).numpy(), wanted, atol=1e-12)


def test_equal_lengths_are_the_plain_mean() -> None:
    rewards = [1.0, 0.25, -3.0, 0.5]
    assert of_rewards(OptimalBaseline(), rewards, lengths=[3] * 4) == pytest.approx(of_rewards(GroupCentred(), rewards))


def test_large_rewards_do_not_cancel() -> None:
    got = of_rewards(OptimalBaseline(), [1e9 + 1, 1e9, 1e9, 1e9 + 1], lengths=[2, 4, 4, 10])
    assert got == pytest.approx([0.4, -0.6, -0.6, 0.4], abs=1e-6)


def test_ties_single_verdicts_and_groups_out_of_the_mask() -> None:
    assert of_rewards(OptimalBaseline(), [0.9] * 3, lengths=[1, 7, 2]) == [0, 0, 0]
    assert of_rewards(OptimalBaseline(), [1, 1], lengths=[1, 7], groups=[0, 1]) == [0, 0]
    world = graded(3).world
    masked = replace(world, batch=replace(world.batch, loss_mask_BT=world.batch.loss_mask_BT & False))
    plain = advantages_of(GroupCentred(), world)
    np.testing.assert_allclose(advantages_of(OptimalBaseline(), masked).numpy(), plain.numpy(), atol=1e-12)
    assert OptimalBaseline().min_completions() == 2
