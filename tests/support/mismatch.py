"""Worlds in which the sampler and the trainer disagree by given log-ratios."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from delta_lightning.interfaces import RolloutCorrection
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored, make_batch, mixed, scored
from delta_lightning.types import Correction


def world_of(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.float64) -> Scored:
    """One row per list of log-ratios d = log pi_old - log mu, one group."""
    world = scored(make_batch([len(row) for row in rows], rewards=[0.0] * len(rows), groups=[0] * len(rows)), [0.0] * len(rows))
    mask_BT = world.batch.loss_mask_BT
    d_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    d_BT[mask_BT] = torch.tensor([d for row in rows for d in row], dtype=torch.float64)
    logprobs_BT = (world.batch.behaviour_logprobs_BT.double() + d_BT).to(dtype)
    return replace(world, logprobs_BT=logprobs_BT)


def log_ratios(world: Scored) -> list[list[float]]:
    """d of each trained token, row by row."""
    d_BT = world.logprobs_BT.double() - world.batch.behaviour_logprobs_BT.double()
    return per_row(d_BT, world)


def per_row(value_BT: Tensor, world: Scored) -> list[list[float]]:
    """The trained tokens' values, row by row."""
    return [value[mask].tolist() for value, mask in zip(value_BT, world.batch.loss_mask_BT, strict=True)]


def correct(part: RolloutCorrection, world: Scored) -> Correction:
    """What the part says of the whole world."""
    return part.correct(View(world))


def weights(part: RolloutCorrection, rows: Sequence[Sequence[float]]) -> list[list[float]]:
    """Weights for given log-ratios, row by row."""
    world = world_of(rows)
    return per_row(correct(part, world).weights_BT, world)


def check_reference(part: RolloutCorrection, wanted: Sequence[Sequence[float]], world: Scored, tolerance: float) -> None:
    """Weights as wanted, and every token of weight 0 out of the mask, unless it was never in."""
    got = correct(part, world)
    flat = torch.tensor([value for row in wanted for value in row], dtype=torch.float64)
    mask_BT = world.batch.loss_mask_BT
    torch.testing.assert_close(got.weights_BT[mask_BT].double(), flat, rtol=tolerance, atol=tolerance)
    assert got.mask_BT[mask_BT].tolist() == [value > 0 for value in flat.tolist()]
    assert got.weights_BT.dtype == world.logprobs_BT.dtype


WORLDS = [(mixed(torch.float64), 1e-12), (mixed(torch.float32), 1e-5)]
# 50 nats each way, equal policies, and a row whose ratios multiply to 1.
EXTREME = [[50.0, -50.0], [50.0], [-50.0], [0.0, 0.0, 0.0], [0.5, -0.5]]
