from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import GroupStandardised
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import make_batch, scored
from support import reference_advantages
from support.graded import advantages_of, graded, of_rewards


def test_standardises_within_groups() -> None:
    batch = make_batch(
        [1] * 10,
        rewards=[1, 0, 0, 1, 1, 1, 1, 0, 1, 1],
        groups=[4, 4, 4, 4, 1, 1, 1, 9, 9, 9],
        valid=[True] * 9 + [False],
    )
    got = GroupStandardised().advantages(View(scored(batch, [0] * 10)))
    half = 0.5**0.5
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024, 0, 0, 0, -half, half, 0], abs=2e-6)
    assert got[4:7].tolist() == [0, 0, 0]


def test_needs_two_completions_and_no_scores() -> None:
    assert GroupStandardised().min_completions() == 2
    assert GroupStandardised().needs() == frozenset()
    assert GroupStandardised().eps == 1e-6


def test_eps() -> None:
    batch = make_batch([1, 1], rewards=[1, -1], groups=[0, 0])
    got = GroupStandardised(eps=1).advantages(View(scored(batch, [0, 0])))
    assert got[0].item() == pytest.approx(1 / (2**0.5 + 1))
    with pytest.raises(ConfigError, match=r"advantage\.eps"):
        GroupStandardised(eps=-1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["unbiased", "population"]), st.sampled_from([1e-6, 1e-2]))
def test_equals_the_reference(seed: int, std: str, eps: float) -> None:
    g = graded(seed)
    wanted = reference_advantages.standardised(g.rewards, g.groups, g.valid, std=std, eps=eps)
    np.testing.assert_allclose(advantages_of(GroupStandardised(std=std, eps=eps), g.world).numpy(), wanted, atol=1e-12)  # type: ignore[arg-type]


def test_population_standard_deviation() -> None:
    part = GroupStandardised(std="population")
    assert of_rewards(part, [1, 0, 0, 1]) == pytest.approx([0.999998, -0.999998, -0.999998, 0.999998], abs=1e-6)
    assert of_rewards(part, [0.9] * 7) == [0] * 7
    check_advantage(part)
    with pytest.raises(ConfigError, match=r"advantage\.std"):
        GroupStandardised(std="biased")  # type: ignore[arg-type]
