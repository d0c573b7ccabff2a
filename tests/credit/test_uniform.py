from __future__ import annotations

import torch

from delta_lightning.credit import Uniform
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed


def test_one_on_trained_tokens() -> None:
    world = mixed()
    credit = Uniform().credit(View(world))
    assert torch.equal(credit.scale_BT, world.batch.loss_mask_BT.float())
    assert credit.shift_BT is None


def test_needs_nothing_and_is_not_token_level() -> None:
    assert Uniform().needs() == frozenset()
    assert not Uniform().token_level()
