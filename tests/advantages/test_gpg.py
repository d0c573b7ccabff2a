from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import GPG
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards, over_ranks


def test_alpha_is_the_share_of_groups_that_say_something() -> None:
    """Two of three groups are tied: the third counts three times."""
    got = of_rewards(GPG(), [1, 0, 1, 1, 0, 0], groups=[0, 0, 1, 1, 2, 2])
    assert got == pytest.approx([1.5, -1.5, 0, 0, 0, 0])


def test_alpha_of_rewards_that_are_not_zero() -> None:
    got = of_rewards(GPG(signal="nonzero"), [1, 0, 1, 1, 0, 0], groups=[0, 0, 1, 1, 2, 2])
    assert got == pytest.approx([1, -1, 0, 0, 0, 0])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["informative", "nonzero"]))
def test_equals_the_reference_on_any_number_of_ranks(seed: int, signal: str) -> None:
    g = graded(seed)
    part = GPG(signal=signal)  # type: ignore[arg-type]
    wanted = reference.rescaled(g.rewards, g.groups, g.valid, signal=signal)
    np.testing.assert_allclose(advantages_of(part, g.world).numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(over_ranks(part, g.world, 3).numpy(), wanted, atol=1e-12)


def test_no_signal_gives_exactly_zero() -> None:
    for part in (GPG(), GPG(signal="nonzero")):
        assert of_rewards(part, [0.0] * 4) == [0] * 4
        assert of_rewards(part, [0.9] * 7) == [0] * 7
        assert of_rewards(part, [1.0, 2.0], groups=[0, 1]) == [0, 0]


def test_laws_and_fields() -> None:
    check_advantage(GPG(signal="nonzero"))
    assert GPG().min_completions() == 2
    with pytest.raises(ConfigError, match=r"advantage\.signal"):
        GPG(signal="all")  # type: ignore[arg-type]
