"""Random rewarded batches of every kind, for the tests of advantage estimators."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from delta_lightning.interfaces import AdvantageEstimator
from delta_lightning.testing.views import Collectives, OneRank, View, rows_of_rank, run_ranks
from delta_lightning.testing.worlds import VOCABULARY, Scored, make_batch, scored
from support.reference_advantages import Array, Bools, Ints

NAMES = ("correct", "format")


@dataclass(frozen=True)
class Graded:
    """A world in float64 and the same numbers as NumPy arrays."""

    world: Scored
    rewards: Array
    groups: Ints
    valid: Bools
    mask: Bools
    components: Array
    p: Array
    sum_p_squared: Array


def graded(seed: int, rows: int = 24, *, low: float = -1.0) -> Graded:
    """Groups of all sizes, tied ones too; rows without verdict, rows out of the mask, holes in the mask; real distributions."""
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.0, 1.0, 0.3, low], size=rows)
    groups = rng.integers(0, max(1, rows // 4), size=rows)
    rewards = np.where(groups == 0, 1.0, rewards)  # one group is tied for sure
    valid = rng.random(rows) < 0.85
    batch = make_batch(
        rng.integers(1, 7, size=rows).tolist(),
        rewards=rewards.tolist(),
        groups=groups.tolist(),
        valid=valid.tolist(),
        seed=seed,
    )
    kept = torch.from_numpy(rng.random(batch.loss_mask_BT.shape) < 0.8) & torch.from_numpy(rng.random((rows, 1)) < 0.9)
    components = np.stack([rewards, rng.choice([0.0, 1.0, 0.5], size=rows)], axis=1) * valid[:, None]
    batch = replace(
        batch,
        loss_mask_BT=batch.loss_mask_BT & kept,
        rewards_B=torch.from_numpy(rewards * valid),
        components_BR=torch.from_numpy(components),
        component_names=NAMES,
    )
    mask = batch.loss_mask_BT.numpy()
    logits = rng.normal(scale=3, size=(*mask.shape, VOCABULARY))
    p_BTV = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = rng.integers(0, VOCABULARY, size=mask.shape)
    p = np.take_along_axis(p_BTV, chosen[..., None], -1)[..., 0]
    sum_p_squared = (p_BTV**2).sum(-1)
    world = replace(
        scored(batch, [0.0] * rows),
        logprobs_BT=torch.from_numpy(np.log(p)),
        sum_p_squared_BT=torch.from_numpy(sum_p_squared),
    )
    return Graded(world, batch.rewards_B.numpy(), groups, valid, mask, components, p, sum_p_squared)


def advantages_of(part: AdvantageEstimator, world: Scored, ranks: Collectives | None = None) -> torch.Tensor:
    """What `part` gives for the rows of `world`."""
    return part.advantages(View(world, ranks=OneRank() if ranks is None else ranks))


def over_ranks(part: AdvantageEstimator, world: Scored, size: int) -> torch.Tensor:
    """The same, of `size` ranks with whole groups each, in the order of the rows."""
    rows = [rows_of_rank(world, rank, size) for rank in range(size)]
    pieces = run_ranks(size, lambda rank, ranks: advantages_of(part, world.rows(rows[rank]), ranks))
    return torch.cat(pieces)[torch.cat(rows).argsort()]


def of_rewards(
    part: AdvantageEstimator, rewards: list[float], *, lengths: list[int] | None = None, groups: list[int] | None = None,
    valid: list[bool] | None = None,
) -> list[float]:  # fmt: skip
    """Advantages of hand-written rewards, float64, one group of one-token answers unless said otherwise."""
    batch = make_batch(lengths or [1] * len(rewards), rewards=rewards, groups=groups or [0] * len(rewards), valid=valid)
    batch = replace(batch, rewards_B=torch.tensor(rewards, dtype=torch.float64))
    return advantages_of(part, scored(batch, [0.0] * len(rewards))).tolist()
