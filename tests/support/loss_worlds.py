"""Sequences with given ratios, and comparisons with the references of policy losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from delta_lightning.interfaces import PolicyLoss
from delta_lightning.testing.laws import at_log_ratio, drift
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored, make_batch, mixed, scored
from delta_lightning.types import Experience, Need, Statistics, TokenScores
from support.reference_losses import RowLoss, by_rows

RATIOS = (0.5, 0.9, 1.0, 1.25, 2.0)


def at_ratios(
    ratios: Sequence[float] = RATIOS, *, advantage: float, credit: Sequence[float] | None = None
) -> tuple[Experience, TokenScores, Tensor]:
    """One sequence whose tokens moved by the given ratios; its log-probabilities are leaves."""
    world = scored(make_batch([len(ratios)], rewards=[1.0], groups=[0]), [advantage])
    mask_BT = world.batch.loss_mask_BT
    log_ratio_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    log_ratio_BT[mask_BT] = torch.tensor(ratios, dtype=torch.float64).log()
    # Far below 0, so that a ratio of 2 leaves a probability.
    world = replace(world, logprobs_BT=(world.logprobs_BT - 3) * mask_BT)
    experience, scores, leaf = at_log_ratio(world, log_ratio_BT)
    if credit is not None:
        scale_BT = torch.zeros_like(log_ratio_BT)
        scale_BT[mask_BT] = torch.tensor(credit, dtype=torch.float64)
        experience = replace(experience, credit=replace(experience.credit, scale_BT=scale_BT))
    return experience, scores, leaf


def statistics_of(part: PolicyLoss, world: Scored) -> Statistics | None:
    return part.statistics(world.experience(), View(world)) if Need.MINI_BATCH in part.needs() else None


def values_and_slopes(part: PolicyLoss, experience: Experience, scores: TokenScores, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each token of the mask, and the derivative of the sum by its log-probability."""
    loss_BT = part.per_token(experience, scores, None)
    (slope_BT,) = torch.autograd.grad(loss_BT.sum(), leaf)
    mask_BT = experience.batch.loss_mask_BT
    return loss_BT.detach()[mask_BT], slope_BT[mask_BT]


def check_against(part: PolicyLoss, reference: RowLoss, *, size: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
    """Loss and gradient equal the reference at log-ratios of either sign, credit not uniform."""
    world = mixed(torch.float64)
    generator = torch.Generator().manual_seed(4)
    # Probabilities away from 0 and 1, so that the plain formulas of the reference hold.
    old_BT = torch.where(world.batch.loss_mask_BT, world.logprobs_BT - 0.1, 0.0)
    moved_BT = torch.minimum(old_BT + size * drift(world) / 3, torch.tensor(-0.01).double())
    world = replace(world, logprobs_BT=old_BT.to(dtype))
    experience, scores, leaf = at_log_ratio(world, (moved_BT - old_BT).to(dtype))
    mask_BT = world.batch.loss_mask_BT
    credit_BT = 0.5 + torch.rand(mask_BT.shape, generator=generator, dtype=torch.float64).to(dtype)
    experience = replace(experience, credit=replace(experience.credit, scale_BT=credit_BT * mask_BT))
    loss_BT = part.per_token(experience, scores, None)
    (slope_BT,) = torch.autograd.grad(loss_BT.sum(), leaf)
    assert loss_BT.dtype == dtype
    wanted = by_rows(
        reference,
        leaf.detach().double().numpy(),
        experience.old_logprobs_BT.double().numpy(),
        experience.token_advantages_BT.double().numpy(),
        mask_BT.numpy(),
    )
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for got, want, what in zip((loss_BT.detach(), slope_BT), wanted, ("loss", "gradient"), strict=True):
        assert np.abs(want).max() > 0.1, f"{what}: nothing to compare"
        error = np.abs(got.double().numpy() - want).max() / np.abs(want).max()
        assert error <= tolerance, f"{what}: relative error {error:.3g}"
