from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import EntropyBonus
from delta_lightning.testing.laws import check_penalty
from delta_lightning.testing.worlds import mixed
from delta_lightning.types import Need


def test_laws_with_a_negative_coefficient() -> None:
    check_penalty(EntropyBonus(coefficient=-0.1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradient(dtype: torch.dtype) -> None:
    world = mixed(dtype)
    mask_BT = world.batch.loss_mask_BT
    leaf = world.entropies_BT.clone().requires_grad_()
    scores = replace(world.scores(slice(0, 12)), entropies_BT=leaf)
    value_BT = EntropyBonus(coefficient=0.25).per_token(world.experience(), scores)
    assert value_BT.dtype == dtype
    assert torch.equal(value_BT.detach(), -0.25 * world.entropies_BT * mask_BT)
    (gradient_BT,) = torch.autograd.grad(value_BT.sum(), leaf)
    assert torch.equal(gradient_BT, -0.25 * mask_BT.to(dtype))


def test_says_what_is_missing() -> None:
    world = mixed()
    scores = replace(world.scores(slice(0, 12)), entropies_BT=None)
    with pytest.raises(ValueError, match="no entropies"):
        EntropyBonus().per_token(world.experience(), scores)


def test_needs_and_refusals() -> None:
    assert EntropyBonus().needs() == {Need.ENTROPY}
    assert EntropyBonus().coefficient == 0.001
    for coefficient in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"penalty\.coefficient"):
            EntropyBonus(coefficient=coefficient)
