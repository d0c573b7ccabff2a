from __future__ import annotations

import torch

from delta_lightning.corrections import NoCorrection
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import mixed


def test_weight_one_on_the_mask_which_stays() -> None:
    world = mixed()
    correction = NoCorrection().correct(View(world))
    assert torch.equal(correction.mask_BT, world.batch.loss_mask_BT)
    assert torch.equal(correction.weights_BT, world.batch.loss_mask_BT.float())
    assert NoCorrection().needs() == frozenset()
