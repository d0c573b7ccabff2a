"""A token weighting at an update: statistics under a policy that has moved, the mask that is left, the weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from delta_lightning.functional.random import keyed_uniform
from delta_lightning.interfaces import TokenWeighting
from delta_lightning.testing.laws import check_step_part, check_tensor
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored
from delta_lightning.types import Experience, Need, Statistics, with_mask


def moved(world: Scored, size: float = 4.0) -> Scored:
    """The world under a policy whose log-probabilities differ by up to `size` nats, each token's by a number of its own."""
    columns_T = torch.arange(world.logprobs_BT.shape[1])
    drift_BT = 2 * size * (keyed_uniform(world.batch.sequence_ids_B, columns_T) - 0.5)
    return replace(world, logprobs_BT=world.logprobs_BT + drift_BT.to(world.logprobs_BT.dtype))


def update(
    part: TokenWeighting, view: View, *, size: float = 4.0, experience: Experience | None = None
) -> tuple[Tensor, Experience, Statistics | None]:
    """Weights micro-batch by micro-batch as training takes them, and the experience with the mask that is left.

    `view` is under the old policy.
    """
    world = view.world
    experience = world.experience() if experience is None else experience
    now = View(moved(world, size), view.cuts, view.ranks, view.step)
    statistics = part.statistics(experience, now) if Need.MINI_BATCH in part.needs() else None
    if statistics is not None and statistics.keep_BT is not None:
        assert not bool((statistics.keep_BT & ~experience.batch.loss_mask_BT).any()), "mask: enlarged"
        mask_BT = experience.batch.loss_mask_BT & statistics.keep_BT
        experience = replace(experience, batch=with_mask(experience.batch, mask_BT))
    mask_BT = experience.batch.loss_mask_BT
    weights_BT = torch.zeros_like(world.logprobs_BT)
    for rows in view.cuts or [slice(0, world.batch.num_sequences)]:
        scores = now.world.scores(rows)
        scores = replace(scores, logprobs_BT=scores.logprobs_BT * mask_BT[rows])  # as the scorer gives them
        weights_BT[rows] = part.weights(experience.rows(rows), scores, statistics)
    return weights_BT, experience, statistics


def check_update(part: TokenWeighting) -> None:
    """Weights and mask do not depend on the cut, the padding, the order of rows or the number of ranks."""

    def function(view: View) -> dict[str, Tensor]:
        with torch.no_grad():
            weights_BT, experience, _ = update(part, view)
        mask_BT = experience.batch.loss_mask_BT
        check_tensor(weights_BT, mask_BT.shape, "weights", mask=mask_BT)
        return {"weights": weights_BT, "mask": mask_BT.float()}

    check_step_part(function)
