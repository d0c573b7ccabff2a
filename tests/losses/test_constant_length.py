from __future__ import annotations

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import ConstantLength, SequenceSum
from delta_lightning.testing.laws import check_reduction
from delta_lightning.testing.worlds import make_batch, mixed, scored, totals_of


def test_laws_with_another_length() -> None:
    check_reduction(ConstantLength(length=7))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_constant_per_token_whatever_the_lengths(dtype: torch.dtype) -> None:
    for lengths in ([3, 5], [1, 1], [40, 2]):
        world = scored(make_batch(lengths, rewards=[1.0, 0.0], groups=[0, 0]), [1.0, -1.0], dtype=dtype)
        weights_BT = ConstantLength(length=50).weights(world.experience(), totals_of(world))
        assert weights_BT.dtype == dtype
        assert weights_BT[world.batch.loss_mask_BT].tolist() == pytest.approx([0.01] * sum(lengths))


def test_is_the_sequence_sum_over_the_length() -> None:
    world = mixed()
    sums_BT = SequenceSum().weights(world.experience(), totals_of(world))
    constant_BT = ConstantLength(length=8).weights(world.experience(), totals_of(world))
    torch.testing.assert_close(constant_BT * 8, sums_BT, rtol=0, atol=1e-15)


def test_no_token_at_all_gives_zero() -> None:
    world = mixed()
    nothing = world.without(torch.ones_like(world.batch.valid_B))
    assert not bool(ConstantLength().weights(nothing.experience(), totals_of(nothing)).any())


def test_refuses_no_length() -> None:
    assert ConstantLength().length == 3000
    with pytest.raises(ConfigError, match=r"reduction\.length"):
        ConstantLength(length=0)
