from __future__ import annotations

import torch

from delta_lightning.losses import Constant
from delta_lightning.testing.worlds import mixed


def test_ones() -> None:
    for dtype in (torch.float32, torch.float64):
        world = mixed(dtype)
        weights_BT = Constant().weights(world.experience(), world.scores(slice(0, 12)), None)
        assert torch.equal(weights_BT, torch.ones(world.logprobs_BT.shape, dtype=dtype))
    assert Constant().needs() == frozenset()
