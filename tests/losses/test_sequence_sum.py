from __future__ import annotations

import pytest
import torch

from delta_lightning.losses import SequenceSum
from delta_lightning.testing.worlds import mixed, totals_of


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_over_the_sequences_with_a_trained_token(dtype: torch.dtype) -> None:
    world = mixed(dtype)
    weights_BT = SequenceSum().weights(world.experience(), totals_of(world))
    assert weights_BT.dtype == dtype
    # Twelve rows; one has no verdict, one no trained token.
    assert torch.equal(weights_BT, world.batch.loss_mask_BT.to(dtype) * 0.1)


def test_no_token_at_all_gives_zero() -> None:
    world = mixed()
    nothing = world.without(torch.ones_like(world.batch.valid_B))
    assert not bool(SequenceSum().weights(nothing.experience(), totals_of(nothing)).any())
