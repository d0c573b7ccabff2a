from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.errors import RunError
from delta_lightning.losses import ClippedSurrogate, TokenMean, WeightedMean
from delta_lightning.testing.laws import at_log_ratio, drift
from delta_lightning.testing.worlds import Scored, mixed, totals_of
from delta_lightning.types import StepTotals


def credit_of(world: Scored) -> torch.Tensor:
    """Coefficients between 0.8 and 1.2, their mean not 1."""
    draw = torch.rand(world.logprobs_BT.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return ((0.8 + 0.3 * draw) * world.batch.loss_mask_BT).to(world.logprobs_BT.dtype)


def totals(world: Scored, credit_BT: torch.Tensor) -> StepTotals:
    return replace(totals_of(world), credit=float(credit_BT.double().sum()))


def test_eq_8_with_each_coefficient_counted_once() -> None:
    """sum(lambda * l(A)) / sum(lambda), l the loss of the raw advantage."""
    world = mixed()
    credit_BT, mask_BT = credit_of(world), world.batch.loss_mask_BT
    _, scores, _ = at_log_ratio(world, drift(world))
    part = ClippedSurrogate()
    plain_BT = part.per_token(world.experience(), scores, None).detach()
    top = bottom = 0.0
    for row, t in mask_BT.nonzero().tolist():
        top += float(credit_BT[row, t]) * float(plain_BT[row, t])
        bottom += float(credit_BT[row, t])
    credited = world.experience(credit_BT)
    weights_BT = WeightedMean().weights(credited, totals(world, credit_BT))
    got = float((part.per_token(credited, scores, None).detach() * weights_BT).sum())
    assert got == pytest.approx(top / bottom, rel=1e-12)
    twice = float((part.per_token(credited, scores, None).detach() * credit_BT * weights_BT).sum())
    assert abs(twice - got) > 1e-3


def test_is_the_token_mean_of_self_normalised_credit() -> None:
    world = mixed()
    credit_BT = credit_of(world)
    tokens = float(world.batch.loss_mask_BT.sum())
    normal_BT = credit_BT * tokens / float(credit_BT.sum())
    _, scores, _ = at_log_ratio(world, drift(world))
    part = ClippedSurrogate()

    def objective(reduction: TokenMean | WeightedMean, scale_BT: torch.Tensor) -> float:
        experience = world.experience(scale_BT)
        loss_BT = part.per_token(experience, scores, None).detach()
        return float((loss_BT * reduction.weights(experience, totals(world, scale_BT))).sum())

    assert objective(WeightedMean(), credit_BT) == pytest.approx(objective(TokenMean(), normal_BT), rel=1e-12)
    assert objective(WeightedMean(), normal_BT) == pytest.approx(objective(TokenMean(), normal_BT), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_credit_of_zero_trains_nothing(dtype: torch.dtype) -> None:
    world = mixed(dtype)
    zeros_BT = torch.zeros_like(world.logprobs_BT)
    weights_BT = WeightedMean().weights(world.experience(zeros_BT), totals(world, zeros_BT))
    assert weights_BT.dtype == dtype
    assert not bool(weights_BT.any())


def test_refuses_credit_that_sums_to_less_than_zero() -> None:
    world = mixed()
    with pytest.raises(RunError, match="the credit of an optimiser step sums to -25"):
        WeightedMean().weights(world.experience(), replace(totals_of(world), credit=-25.0))
