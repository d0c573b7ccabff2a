from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import PassAtK
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards


def test_golden() -> None:
    assert of_rewards(PassAtK(), [1, 0.2, 0.5, 0.9]) == pytest.approx([0.1, 0, 0, 0], abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["none", "unbiased", "population"]))
def test_equals_the_reference(seed: int, std: str) -> None:
    g = graded(seed)
    wanted = reference.best_of_k(g.rewards, g.groups, g.valid, std=std)
    np.testing.assert_allclose(advantages_of(PassAtK(std=std), g.world).numpy(), wanted, atol=1e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize("std", ["none", "unbiased", "population"])
def test_two_bests_leave_no_margin(std: str) -> None:
    part = PassAtK(std=std)  # type: ignore[arg-type]
    assert of_rewards(part, [1, 0, 1, 0]) == [0, 0, 0, 0]
    assert of_rewards(part, [1, 1 - 5e-7, 0]) == [0, 0, 0]
    assert of_rewards(part, [1, 1 - 2e-6, 0])[0] > 0
    assert of_rewards(part, [0.9] * 5) == [0] * 5
    assert of_rewards(part, [3, 1, 1], groups=[0, 1, 2]) == [0, 0, 0]


def test_a_row_without_verdict_is_never_best_nor_second() -> None:
    got = of_rewards(PassAtK(), [-1, -3, 0, 5], valid=[True, True, False, False])
    assert got == pytest.approx([2, 0, 0, 0])


@pytest.mark.parametrize("part", [PassAtK(std="unbiased"), PassAtK(std="population", eps=0)])
def test_laws(part: PassAtK) -> None:
    check_advantage(part)


def test_refuses_fields_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"advantage\.std"):
        PassAtK(std="biased")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"advantage\.eps"):
        PassAtK(eps=-1.0)
    assert PassAtK().min_completions() == 2
