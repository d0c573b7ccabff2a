from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from delta_lightning.errors import ConfigError
from delta_lightning.functional.random import keyed_uniform, stable_hash
from delta_lightning.losses import KLCov
from delta_lightning.testing.laws import CUTS, at_log_ratio, check_loss, drift
from delta_lightning.testing.views import Collectives, View, run_ranks
from delta_lightning.testing.worlds import Scored, degenerate, mixed
from delta_lightning.types import Need, Statistics
from support import reference_losses


def penalised(part: KLCov, world: Scored, *, log_ratio: float = 0.25) -> Tensor:
    """[B, T]: what the loss has beyond the surrogate, per nat."""
    moved = replace(world, logprobs_BT=world.logprobs_BT + log_ratio * world.batch.loss_mask_BT)
    statistics = part.statistics(world.experience(), View(moved))
    experience, scores, _ = at_log_ratio(world, log_ratio)
    without = replace(part, coefficient=0.0).per_token(experience, scores, statistics)
    return ((part.per_token(experience, scores, statistics) - without) / (log_ratio * part.coefficient)).detach()


def order_of(world: Scored) -> Tensor:
    positions_T = torch.arange(world.batch.loss_mask_BT.shape[1])
    return keyed_uniform(world.batch.sequence_ids_B ^ stable_hash("covariance ties"), positions_T)


@pytest.mark.parametrize("ratio", [0.002, 0.1, 0.3, 1.0])
def test_selects_as_the_reference_does(ratio: float) -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    experience = world.experience()
    wanted = reference_losses.kl_cov_selection(
        experience.raw_advantages_BT[mask_BT].double().tolist(),
        (world.logprobs_BT[mask_BT] + 0.25).tolist(),
        order_of(world)[mask_BT].tolist(),
        ratio=ratio,
    )
    assert penalised(KLCov(ratio=ratio, coefficient=0.7), world)[mask_BT].round(decimals=9).tolist() == wanted
    assert any(wanted)


def test_equals_the_formula() -> None:
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    part = KLCov(ratio=0.2, coefficient=0.3)
    experience, scores, leaf = at_log_ratio(world, drift(world))
    experience = replace(experience, credit=replace(experience.credit, scale_BT=1.7 * mask_BT.double()))
    statistics = part.statistics(world.experience(), View(replace(world, logprobs_BT=leaf.detach())))
    loss_BT = part.per_token(experience, scores, statistics)
    (slope_BT,) = torch.autograd.grad(loss_BT.sum(), leaf)
    chosen = reference_losses.kl_cov_selection(
        experience.raw_advantages_BT[mask_BT].double().tolist(),
        leaf.detach()[mask_BT].tolist(),
        order_of(world)[mask_BT].tolist(),
        ratio=0.2,
    )
    for (row, t), penalty in zip(mask_BT.nonzero().tolist(), chosen, strict=True):
        log_ratio = float(leaf.detach()[row, t] - experience.old_logprobs_BT[row, t])
        surrogate = -1.7 * float(world.advantages[row]) * math.exp(log_ratio)
        assert float(loss_BT[row, t].detach()) == pytest.approx(
            surrogate + 0.3 * penalty * abs(log_ratio), rel=1e-12, abs=1e-12
        )
        sign = (log_ratio > 0) - (log_ratio < 0)
        assert float(slope_BT[row, t]) == pytest.approx(surrogate + 0.3 * penalty * sign, rel=1e-12, abs=1e-12)


def test_credit_leaves_penalty_and_selection_alone() -> None:
    """Twice the credit is not twice the loss."""
    world = mixed()
    part = KLCov(ratio=0.2)
    statistics = part.statistics(world.experience(), View(world))
    experience, scores, _ = at_log_ratio(world, 0.25)
    double = replace(experience, credit=replace(experience.credit, scale_BT=2 * experience.credit.scale_BT))
    once_BT, twice_BT = (part.per_token(e, scores, statistics).detach() for e in (experience, double))
    surrogate_BT = replace(part, coefficient=0.0).per_token(experience, scores, statistics).detach()
    torch.testing.assert_close(twice_BT - once_BT, surrogate_BT)
    assert float((twice_BT - 2 * once_BT).abs().max()) > 0.1
    same = part.statistics(double, View(world))
    assert {k: float(v) for k, v in same.values.items()} == {k: float(v) for k, v in statistics.values.items()}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_selection_is_independent_of_the_cut(cuts: list[slice]) -> None:
    world = mixed()
    part = KLCov(ratio=0.3)
    whole, cut = (part.statistics(world.experience(), View(world, cuts=c)) for c in (None, cuts))
    assert {k: float(v) for k, v in whole.values.items()} == {k: float(v) for k, v in cut.values.items()}


@pytest.mark.parametrize("size", [2, 3, 4])
def test_selection_is_independent_of_ranks(size: int) -> None:
    world = mixed(torch.float32)
    part = KLCov(ratio=0.3)
    wanted = {k: float(v) for k, v in part.statistics(world.experience(), View(world)).values.items()}

    def work(rank: int, ranks: Collectives) -> Statistics:
        mine = world.rows(torch.arange(12)[rank::size])
        return part.statistics(mine.experience(), View(mine, ranks=ranks))

    for statistics in run_ranks(size, work):
        assert {k: float(v) for k, v in statistics.values.items()} == wanted
    wide = world.widened(5)
    assert {k: float(v) for k, v in part.statistics(wide.experience(), View(wide)).values.items()} == wanted


def test_equal_covariances_are_decided_by_a_hash_of_the_place() -> None:
    """Tokens of probability 1 tie exactly; two of them are taken."""
    world = mixed()
    mask_BT = world.batch.loss_mask_BT
    logprobs_BT = torch.where(world.advantages[:, None] > 0.8, 0.0, -1.0).double() * mask_BT
    tied = replace(world, logprobs_BT=logprobs_BT)
    candidates_BT = mask_BT & (world.advantages[:, None] > 0.8)
    taken_BT = penalised(KLCov(ratio=2.5 / int(mask_BT.sum())), tied).round(decimals=9) == 1
    assert int(taken_BT.sum()) == 2 < int(candidates_BT.sum()) and not bool((taken_BT & ~candidates_BT).any())
    order_BT = order_of(world)
    assert float(order_BT[taken_BT].max()) < float(order_BT[candidates_BT & ~taken_BT].min())


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float32, 1e-7), (torch.float64, 1e-15)])
def test_a_tie_is_not_broken_by_rounding(dtype: torch.dtype, noise: float) -> None:
    """Equal tokens at one context have one log-probability, but each micro-batch rounds it in its own way."""
    world = mixed(dtype)
    mask_BT = world.batch.loss_mask_BT
    logprobs_BT = (torch.where(world.advantages[:, None] > 0.8, -0.3, -1.7) * mask_BT).to(dtype)
    signs_BT = torch.randint(0, 2, mask_BT.shape, generator=torch.Generator().manual_seed(0)).to(dtype) * 2 - 1
    tied, rounded = (replace(world, logprobs_BT=logprobs_BT * (1 + size * signs_BT)) for size in (0.0, noise))
    part = KLCov(ratio=4.5 / int(mask_BT.sum()))
    assert not torch.equal(rounded.logprobs_BT, tied.logprobs_BT)
    chosen = [penalised(part, one, log_ratio=0.0625).bool() for one in (tied, rounded)]
    assert int(chosen[0].sum()) == 4 and torch.equal(*chosen)


@pytest.mark.parametrize("name", ["no advantage", "positive side only", "negative side only", "identical tokens", "one token"])
def test_without_covariance_there_is_no_penalty(name: str) -> None:
    assert not bool(penalised(KLCov(ratio=1.0), degenerate(torch.float32)[name]).any())


def test_beyond_the_clamp_only_the_penalty_pulls() -> None:
    world = mixed()
    part = KLCov(ratio=0.3, coefficient=2.0)
    statistics = part.statistics(world.experience(), View(world))
    experience, scores, leaf = at_log_ratio(world, -50.0)
    (slope_BT,) = torch.autograd.grad(part.per_token(experience, scores, statistics).sum(), leaf)
    assert set(slope_BT.flatten().tolist()) == {0.0, -2.0}


def test_a_mask_that_shrank_leaves_nothing_outside() -> None:
    """Old log-probabilities stay where a weighting took tokens out; those of the scores are 0 there."""
    world = mixed()
    fewer = world.without(world.batch.sequence_ids_B == 0)
    experience = replace(fewer.experience(), old_logprobs_BT=world.experience().old_logprobs_BT)
    part = KLCov(ratio=1.0)
    statistics = part.statistics(experience, View(fewer))
    loss_BT = part.per_token(experience, fewer.scores(slice(0, 12)), statistics)
    assert not bool(loss_BT[~fewer.batch.loss_mask_BT].any())


def test_obeys_the_laws_with_every_token() -> None:
    check_loss(KLCov(ratio=1.0, coefficient=0.5))
    assert KLCov().needs() == {Need.MINI_BATCH} and not KLCov().erases_token_credit()


def test_needs_its_statistics() -> None:
    world = mixed()
    with pytest.raises(ValueError, match="MINI_BATCH"):
        KLCov().per_token(world.experience(), world.scores(slice(0, 12)), None)


@pytest.mark.parametrize("fields", [{"ratio": 0.0}, {"ratio": 1.1}, {"coefficient": -1.0}, {"log_ratio_clamp": 0.0}])
def test_refuses_fields_out_of_range(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"loss.{next(iter(fields))}"):
        KLCov(**fields)
