from __future__ import annotations

import pytest
import torch

from delta_lightning.functional.policy_covariance import above_cut, covariance, covariance_cut


def test_by_hand() -> None:
    advantages, logprobs = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([-0.5, -1.5, -1.0, -3.0])
    cut = covariance_cut(advantages, logprobs, torch.arange(4.0), ratio=0.5)
    assert (float(cut.advantage), float(cut.logprob), float(cut.covariance)) == (0, -1.5, 1.0)
    values = covariance(advantages, logprobs, advantage=cut.advantage, logprob=cut.logprob)
    assert values.tolist() == [1, 0, -0.5, 1.5]
    assert above_cut(advantages, logprobs, torch.arange(4.0), cut).tolist() == [True, False, False, True]


@pytest.mark.parametrize(("ratio", "count"), [(1e-9, 1), (0.19, 1), (0.3, 3), (0.39, 3)])
def test_count_is_rounded_down_but_at_least_one(ratio: float, count: int) -> None:
    advantages = torch.tensor([1.0, -1.0]).repeat(5)
    logprobs = torch.arange(10.0)
    cut = covariance_cut(advantages, logprobs, torch.arange(10.0), ratio=ratio)
    assert int(above_cut(advantages, logprobs, torch.arange(10.0), cut).sum()) == count


def test_equal_values_have_no_covariance_made_of_rounding() -> None:
    advantages = torch.full((49,), 0.1, dtype=torch.float64)
    logprobs, order = -torch.rand(49, generator=torch.Generator().manual_seed(1)), torch.arange(49.0)
    assert any(float(advantages[:n].mean()) != 0.1 for n in range(1, 50)), "the plain mean is exact here"
    for n in range(1, 50):
        cut = covariance_cut(advantages[:n], logprobs[:n], order[:n], ratio=1.0)
        assert not bool(above_cut(advantages[:n], logprobs[:n], order[:n], cut).any())


def test_ties_go_by_order() -> None:
    advantages, logprobs = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([0.0, 0.0, 0.0, -4.0])
    order = torch.tensor([0.5, 0.1, 0.3, 0.2])
    cut = covariance_cut(advantages, logprobs, order, ratio=0.75)
    assert above_cut(advantages, logprobs, order, cut).tolist() == [False, True, True, True]


def test_without_tokens_nothing_is_above() -> None:
    nothing = torch.zeros(0)
    cut = covariance_cut(nothing, nothing, nothing, ratio=0.5)
    assert not bool(above_cut(torch.ones(1), torch.ones(1), torch.zeros(1), cut))


def test_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="one shape"):
        covariance_cut(torch.zeros(3), torch.zeros(4), torch.zeros(3), ratio=0.5)
