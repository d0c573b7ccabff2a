"""What holds between policy losses, and for all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies

from delta_lightning.functional.policy import clipped_surrogate
from delta_lightning.interfaces import PolicyLoss, Reduction
from delta_lightning.losses import (
    CISPO,
    DPPO,
    GMPO,
    GSPO,
    LUSPO,
    SAPO,
    VESPO,
    ClippedSurrogate,
    GSPOToken,
    KLCov,
    Reinforce,
    SequenceMean,
    TokenMean,
)
from delta_lightning.testing.laws import at_log_ratio, drift
from delta_lightning.testing.worlds import degenerate, mixed, totals_of
from support.loss_worlds import at_ratios, statistics_of, values_and_slopes

ALL: list[PolicyLoss] = [
    ClippedSurrogate(), Reinforce(), SAPO(), CISPO(), GSPO(), GSPOToken(), DPPO(), DPPO(divergence="kl"), KLCov(ratio=0.3),
    GMPO(), LUSPO(), VESPO(),
]  # fmt: skip
COMMUTING = [part for part in ALL if not part.erases_token_credit() and not isinstance(part, KLCov)]


def name(part: PolicyLoss) -> str:
    return type(part).__name__


@pytest.mark.parametrize("reduction", [TokenMean(), SequenceMean()], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("part", ALL, ids=name)
def test_at_the_old_policy_all_have_one_gradient(part: PolicyLoss, reduction: Reduction) -> None:
    """One update per rollout step, uniform credit: the choice of loss changes nothing."""
    world = mixed()
    experience, scores, leaf = at_log_ratio(world, 0.0)
    weights_BT = reduction.weights(experience, totals_of(world))
    loss_BT = part.per_token(experience, scores, statistics_of(part, world))
    (gradient_BT,) = torch.autograd.grad((loss_BT * weights_BT).sum(), leaf)
    torch.testing.assert_close(gradient_BT, -experience.raw_advantages_BT * weights_BT, rtol=1e-12, atol=1e-15)


@settings(max_examples=25)
@given(
    credit=strategies.lists(strategies.floats(0.01, 50), min_size=5, max_size=5),
    advantage=strategies.sampled_from([-1.5, -0.1, 0.3, 2.0]),
)
@pytest.mark.parametrize("part", COMMUTING, ids=name)
def test_positive_credit_is_a_factor_of_the_loss(part: PolicyLoss, credit: list[float], advantage: float) -> None:
    """Where credit is not erased, multiplying the advantage is multiplying the token's loss: no branch changes."""
    plain = values_and_slopes(part, *at_ratios(advantage=advantage))
    credited = values_and_slopes(part, *at_ratios(advantage=advantage, credit=credit))
    for got, wanted in zip(credited, plain, strict=True):
        torch.testing.assert_close(got, torch.tensor(credit, dtype=torch.float64) * wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", ALL, ids=name)
def test_without_advantage_there_is_no_loss(part: PolicyLoss) -> None:
    world = degenerate()["no advantage"]
    experience, scores, leaf = at_log_ratio(world, drift(world))
    loss_BT = part.per_token(experience, scores, statistics_of(part, world))
    (gradient_BT,) = torch.autograd.grad(loss_BT.sum(), leaf)
    assert not bool(loss_BT.any()) and not bool(gradient_BT.any())


@pytest.mark.parametrize("part", ALL, ids=name)
def test_a_mask_that_shrank_leaves_nothing_outside(part: PolicyLoss) -> None:
    """A weighting's statistics may take tokens out; old log-probabilities stay there, those of the scores are 0."""
    world = mixed()
    mask_BT = world.batch.loss_mask_BT & (torch.arange(world.batch.loss_mask_BT.shape[1]) != 3)
    fewer = replace(world, batch=replace(world.batch, loss_mask_BT=mask_BT))
    stale = replace(fewer.experience(), old_logprobs_BT=world.experience().old_logprobs_BT)
    clean = replace(stale, old_logprobs_BT=stale.old_logprobs_BT * mask_BT)
    scores = fewer.scores(slice(0, 12))
    statistics = statistics_of(part, fewer)
    got_BT = part.per_token(stale, scores, statistics)
    assert torch.equal(got_BT, part.per_token(clean, scores, statistics))
    assert not bool(got_BT[~mask_BT].any())
    for value_BT in part.metrics(stale, scores).values():
        assert not bool(value_BT[~mask_BT].any())


@given(
    advantage=strategies.sampled_from([-2.0, -1.0, 1.0, 3.0]),
    ratio=strategies.floats(0.05, 20).filter(lambda ratio: ratio != 4.0),  # the corner, where either slope is right
)
def test_an_upper_clamp_of_the_unclipped_ratio_is_the_dual_clip(advantage: float, ratio: float) -> None:
    """INTELLECT-2's two-sided clipping, TRL's `delta`: min(min(r, delta) A, clip(r) A), with delta above the clip."""
    pairs = []
    for two_sided in (True, False):
        r = torch.tensor([[ratio]], dtype=torch.float64, requires_grad=True)
        a = torch.tensor([[advantage]], dtype=torch.float64)
        if two_sided:
            loss = -torch.minimum(r.clamp(max=4.0) * a, r.clamp(0.8, 1.28) * a)
        else:
            loss = clipped_surrogate(r, a, clip_low=0.2, clip_high=0.28, dual_clip=4.0)
        (slope,) = torch.autograd.grad(loss.sum(), r)
        pairs.append((loss.detach(), slope))
    for got, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("advantage", "dual", "wanted"),
    [
        (1.0, None, [-0.5, -0.9, -1, -1.25, -1.28]),
        (-1.0, None, [0.8, 0.9, 1, 1.25, 2]),
        (-1.0, 1.5, [0.8, 0.9, 1, 1.25, 1.5]),
    ],
)
def test_golden_values_of_the_clip(advantage: float, dual: float | None, wanted: list[float]) -> None:
    loss_N, _ = values_and_slopes(ClippedSurrogate(dual_clip=dual), *at_ratios(advantage=advantage))
    assert loss_N.tolist() == pytest.approx(wanted)


def test_which_losses_refuse_which_credit() -> None:
    assert {name(part) for part in ALL if part.erases_token_credit()} == {"GSPO", "LUSPO", "GMPO"}
    assert {name(part) for part in ALL if part.single_signed()} == {"GSPOToken"}
