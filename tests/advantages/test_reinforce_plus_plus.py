from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.advantages import ReinforcePlusPlus
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_advantage
from support import reference_advantages as reference
from support.graded import advantages_of, graded, of_rewards, over_ranks

VARIANTS = list(itertools.product(["tokens", "responses"], ["unbiased", "population"]))


def test_tokens_weigh_by_length() -> None:
    """Rewards 1 and 0 with 3 and 1 tokens: mean 0.75, variance (3 / 16 + 9 / 16) / 3 = 1 / 4."""
    got = of_rewards(ReinforcePlusPlus(eps=0), [1, 0], lengths=[3, 1], groups=[0, 1])
    assert got == pytest.approx([0.5, -1.5])
    got = of_rewards(ReinforcePlusPlus(eps=0, counted="responses", std="population"), [1, 0], lengths=[3, 1], groups=[0, 1])
    assert got == pytest.approx([1, -1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(VARIANTS))
def test_equals_the_reference_on_any_number_of_ranks(seed: int, variant: tuple[str, str]) -> None:
    counted, std = variant
    g = graded(seed)
    part = ReinforcePlusPlus(counted=counted, std=std)  # type: ignore[arg-type]
    wanted = reference.whitened(g.rewards, g.mask, g.valid, counted=counted, std=std)
    np.testing.assert_allclose(advantages_of(part, g.world).numpy(), wanted, atol=1e-12)
    np.testing.assert_allclose(over_ranks(part, g.world, 3).numpy(), wanted, atol=1e-12)


def test_whitened_tokens_have_mean_zero_and_variance_one() -> None:
    g = graded(5)
    values = np.repeat(advantages_of(ReinforcePlusPlus(), g.world).numpy(), g.mask.sum(1))
    assert values.mean() == pytest.approx(0, abs=1e-12)
    assert values.var(ddof=1) == pytest.approx(1, abs=1e-6)


def test_large_rewards_do_not_cancel() -> None:
    plain = of_rewards(ReinforcePlusPlus(), [1, 0, 0, 1], lengths=[3, 1, 2, 5])
    assert of_rewards(ReinforcePlusPlus(), [1e7 + 1, 1e7, 1e7, 1e7 + 1], lengths=[3, 1, 2, 5]) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_equal_rewards_and_a_single_token_give_exactly_zero(eps: float) -> None:
    part = ReinforcePlusPlus(eps=eps)
    assert of_rewards(part, [0.9] * 7, lengths=[1, 2, 3, 4, 5, 6, 7]) == [0] * 7
    assert of_rewards(part, [3.0]) == [0]
    assert of_rewards(part, [1.0, 0.0], valid=[True, False]) == [0, 0]


@pytest.mark.parametrize(("counted", "std"), VARIANTS)
def test_laws(counted: str, std: str) -> None:
    check_advantage(ReinforcePlusPlus(counted=counted, std=std))  # type: ignore[arg-type]


def test_fields() -> None:
    assert ReinforcePlusPlus() == ReinforcePlusPlus(counted="tokens", std="unbiased", eps=1e-8)
    assert ReinforcePlusPlus().min_completions() == 1
    for fields in ({"counted": "rows"}, {"std": "biased"}, {"eps": -1e-9}):
        with pytest.raises(ConfigError, match=rf"advantage\.{next(iter(fields))}"):
            ReinforcePlusPlus(**fields)
