from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import ReinforcePlusPlusBaseline
from delta_lightning.testing.laws import check_advantage
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards, over_ranks

ONE_TIED = {"rewards": [1, 0, 0.7, 0.7, 0.7], "lengths": [3, 1, 4, 2, 2], "groups": [0, 0, 1, 1, 1]}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["tokens", "responses"]), st.sampled_from(["unbiased", "population"]))
def test_equals_the_reference_on_any_number_of_ranks(seed: int, counted: str, std: str) -> None:
    g = graded(seed)
    part = ReinforcePlusPlusBaseline(counted=counted, std=std)  # type: ignore[arg-type]
    centred = reference.centred(g.rewards, g.groups, g.valid)
    wanted = reference.whitened(centred, g.mask, g.valid, counted=counted, std=std)
    np.testing.assert_allclose(advantages_of(part, g.world).numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(over_ranks(part, g.world, 3).numpy(), wanted, atol=1e-12)


def test_tokens_shift_a_group_of_equal_rewards() -> None:
    """D = .5, -.5, 0, 0, 0 over 3, 1, 4, 2, 2 tokens: mean 1 / 12, variance 11 / 12 (1 / 11)."""
    got = of_rewards(ReinforcePlusPlusBaseline(eps=0), **ONE_TIED)  # type: ignore[arg-type]
    deviation = ((4 * 0.25 - 12 / 144) / 11) ** 0.5
    assert got == pytest.approx([(0.5 - 1 / 12) / deviation, (-0.5 - 1 / 12) / deviation, *[-1 / 12 / deviation] * 3])


def test_responses_leave_a_group_of_equal_rewards_at_exactly_zero() -> None:
    got = of_rewards(ReinforcePlusPlusBaseline(counted="responses"), **ONE_TIED)  # type: ignore[arg-type]
    assert got[2:] == [0, 0, 0]
    assert got[0] == -got[1] > 0


def test_one_scale_for_easy_and_hard_prompts() -> None:
    """GRPO would give the two lone deviants 1.5 and -1.5 and every split group the same: here the spread is common."""
    part = ReinforcePlusPlusBaseline(counted="responses")
    got = of_rewards(part, [1, 0, 0, 0, 1, 1, 0, 0], groups=[0, 0, 0, 0, 1, 1, 1, 1])
    assert got[0] / got[4] == pytest.approx(0.75 / 0.5)


@pytest.mark.parametrize("counted", ["tokens", "responses"])
def test_nothing_to_compare_gives_exactly_zero(counted: str) -> None:
    part = ReinforcePlusPlusBaseline(counted=counted)  # type: ignore[arg-type]
    assert of_rewards(part, [0.9] * 7) == [0] * 7
    assert of_rewards(part, [1, 0, 5], groups=[0, 1, 2]) == [0, 0, 0]
    check_advantage(part)
    assert part.min_completions() == 2
