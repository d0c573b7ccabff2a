from __future__ import annotations

import torch

from delta_lightning.losses import TokenMean
from delta_lightning.testing.worlds import mixed, totals_of


def test_one_over_the_tokens_of_the_whole_step() -> None:
    world = mixed()
    tokens = int(world.batch.loss_mask_BT.sum())
    weights_BT = TokenMean().weights(world.experience(), totals_of(world))
    assert weights_BT.dtype == torch.float64
    assert torch.equal(weights_BT, world.batch.loss_mask_BT / torch.tensor(float(tokens), dtype=torch.float64))


def test_no_token_at_all_gives_zero() -> None:
    world = mixed()
    nothing = world.without(torch.ones_like(world.batch.valid_B))
    assert not bool(TokenMean().weights(nothing.experience(), totals_of(nothing)).any())
