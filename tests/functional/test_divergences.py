from __future__ import annotations

from typing import get_args

import pytest
import torch

from delta_lightning.functional.divergences import Estimator, kl_estimate
from support import reference_weightings as reference

RATIOS = torch.tensor([[0.5, 0.9, 1, 1.25, 2]], dtype=torch.float64)
ZEROS = torch.zeros_like(RATIOS)


@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        ("k2", [0.240227, 0.00555, 0, 0.024897, 0.240227]),
        ("k3", [0.306853, 0.005751, 0, 0.023144, 0.193147]),
    ],
)
def test_golden(estimator: Estimator, wanted: list[float]) -> None:
    """Ratios of the policy to the reference."""
    got = kl_estimate(estimator, RATIOS.log(), ZEROS, ZEROS)[0].tolist()
    assert got == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_equals_the_reference(estimator: Estimator) -> None:
    draws = 2 * torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = kl_estimate(estimator, draws[:1], draws[1:2], draws[2:])[0].tolist()
    wanted = [reference.kl(estimator, *(float(value) for value in column)) for column in draws.T]
    assert got == pytest.approx(wanted, rel=1e-12)


def policies() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a policy (a leaf), log-probabilities of an old policy and of a reference, over seven tokens."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    return logits[0].clone().requires_grad_(), logits[1].log_softmax(-1), logits[2].log_softmax(-1)


def gradient(estimator: Estimator, *, on_policy: bool) -> torch.Tensor:
    """Expected gradient of the estimate, exactly: the sum over tokens of their probability under the sampling policy."""
    logits, old_V, reference_V = policies()
    log_p_V = logits.log_softmax(-1)
    sampling_V = log_p_V.detach() if on_policy else old_V
    value_V = kl_estimate(estimator, log_p_V[None], reference_V[None], sampling_V[None])[0]
    (grad,) = torch.autograd.grad((sampling_V.exp() * value_V).sum(), logits)
    return grad


def kl_gradient(*, reverse: bool) -> torch.Tensor:
    """Of KL(policy, reference), or of KL(reference, policy)."""
    logits, _, reference_V = policies()
    log_p_V = logits.log_softmax(-1)
    terms = log_p_V.exp() * (log_p_V - reference_V) if reverse else reference_V.exp() * (reference_V - log_p_V)
    (grad,) = torch.autograd.grad(terms.sum(), logits)
    return grad


def test_what_each_gradient_is_the_gradient_of() -> None:
    """The sentences of the docstring of `KL`, in expectation and exactly."""
    torch.testing.assert_close(gradient("k1", on_policy=True), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-15)
    torch.testing.assert_close(gradient("k2", on_policy=True), kl_gradient(reverse=True))
    torch.testing.assert_close(gradient("k3", on_policy=True), kl_gradient(reverse=False))
    torch.testing.assert_close(gradient("unbiased", on_policy=True), kl_gradient(reverse=True))
    torch.testing.assert_close(gradient("unbiased", on_policy=False), kl_gradient(reverse=True))
    estimators: tuple[Estimator, ...] = ("k2", "k3")
    for estimator in estimators:
        assert float((gradient(estimator, on_policy=False) - kl_gradient(reverse=True)).abs().max()) > 1e-2


@pytest.mark.parametrize("estimator", get_args(Estimator))
@pytest.mark.parametrize("log_ratio", [50.0, -50.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_are_finite_and_never_push_away(estimator: Estimator, log_ratio: float, dtype: torch.dtype) -> None:
    """x = log p_ref - log p = log_ratio: a gradient, if any, moves log p towards log p_ref."""
    logprobs = torch.tensor([[-60.0]], dtype=dtype, requires_grad=True)
    value = kl_estimate(estimator, logprobs, logprobs.detach() + log_ratio, torch.tensor([[-60.0]], dtype=dtype))
    (grad,) = torch.autograd.grad(value.sum(), logprobs)
    assert bool(torch.isfinite(value)) and bool(torch.isfinite(grad))
    if estimator in ("k2", "k3"):
        assert float(grad) * log_ratio <= 0
