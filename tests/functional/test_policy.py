from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from delta_lightning.functional.policy import clamped_log_ratio, clipped_surrogate, kl_k3
from support import reference


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(
    ("advantage", "dual", "ratios", "losses"),
    [
        (1, None, (0.5, 0.9, 1, 1.25, 2), (-0.5, -0.9, -1, -1.25, -1.28)),
        (-1, None, (0.5, 0.9, 1, 1.25, 2), (0.8, 0.9, 1, 1.25, 2)),
        (-1, 3.0, (0.5, 0.9, 1, 4, 12), (0.8, 0.9, 1, 3, 3)),
        (-1, 10.0, (0.5, 0.9, 1, 4, 12), (0.8, 0.9, 1, 4, 10)),
        (1, 10.0, (0.5, 12, 1, 4, 12), (-0.5, -1.28, -1, -1.28, -1.28)),
    ],
)
def test_golden_values(advantage: float, dual: float | None, ratios: tuple[float, ...], losses: tuple[float, ...]) -> None:
    got = clipped_surrogate(row(*ratios), row(*[advantage] * 5), dual_clip=dual)
    torch.testing.assert_close(got, row(*losses), rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.floats(-60, 60), st.floats(-5, 5), st.floats(0, 0.9), st.floats(0, 2), st.sampled_from([None, 3.0, 10.0]))
def test_equals_the_reference(log_ratio: float, advantage: float, low: float, high: float, dual: float | None) -> None:
    ratio = clamped_log_ratio(row(log_ratio), row(0.0)).exp()
    got = clipped_surrogate(ratio, row(advantage), clip_low=low, clip_high=high, dual_clip=dual)
    wanted = reference.surrogate(log_ratio, advantage, clip_low=low, clip_high=high, dual=dual)
    np.testing.assert_allclose(got.item(), wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(0.01, 20), st.floats(-5, 5), st.floats(0.01, 5))
def test_positive_coefficients_commute(ratio: float, advantage: float, coefficient: float) -> None:
    scaled = clipped_surrogate(row(ratio), row(coefficient * advantage))
    torch.testing.assert_close(scaled, coefficient * clipped_surrogate(row(ratio), row(advantage)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [
        (1.27, 2, True),
        (1.29, 2, False),
        (0.5, 2, True),
        (0.79, -2, False),
        (0.81, -2, True),
        (9.9, -2, True),
        (10.1, -2, False),
    ],
)
def test_gradient_stops_at_the_clips(ratio: float, advantage: float, flows: bool) -> None:
    log_ratio = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    clipped_surrogate(log_ratio.exp(), row(advantage)).sum().backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.item() == pytest.approx(-ratio * advantage if flows else 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.28), (0.0, 0.0)])
def test_equal_log_probabilities_give_a_ratio_of_exactly_one(dtype: torch.dtype, low: float, high: float) -> None:
    logprobs = -torch.rand(1, 50, dtype=dtype).mul(30).requires_grad_()
    advantages = torch.randn(1, 50, dtype=dtype)
    logprobs.retain_grad()
    ratio = clamped_log_ratio(logprobs, logprobs.detach().clone()).exp()
    assert torch.equal(ratio, torch.ones_like(ratio))
    clipped_surrogate(ratio, advantages, clip_low=low, clip_high=high).sum().backward()
    assert torch.equal(logprobs.grad, -advantages)  # type: ignore[arg-type]


def test_log_ratio_is_clamped_and_its_gradient_stops_there() -> None:
    logprobs = row(-1.0, -60.0, 30.0).requires_grad_()
    log_ratio = clamped_log_ratio(logprobs, row(-2.0, -1.0, -1.0))
    assert log_ratio.tolist() == [[1.0, -20.0, 20.0]]
    log_ratio.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[1.0, 0.0, 0.0]]
    assert clamped_log_ratio(row(5.0), row(0.0), clamp=2).item() == 2


def test_k3_is_unbiased_nonnegative_and_accurate_near_zero() -> None:
    old, new = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64), torch.tensor([0.25, 0.15, 0.6], dtype=torch.float64)
    estimate = (old * kl_k3((new / old).log())).sum()
    assert estimate.item() == pytest.approx((old * (old / new).log()).sum().item(), abs=1e-15)
    assert kl_k3(row(0.0)).item() == 0
    assert kl_k3(row(1e-5)).item() == pytest.approx(5e-11, rel=1e-4)
    assert bool((kl_k3(torch.linspace(-20, 20, 101).double()) >= 0).all())


def test_refuses_different_shapes() -> None:
    with pytest.raises(ValueError, match="wanted one shape"):
        clipped_surrogate(torch.ones(2, 1), torch.ones(2, 3))
    with pytest.raises(ValueError, match="wanted one shape"):
        clamped_log_ratio(torch.ones(2, 1), torch.ones(2, 3))
