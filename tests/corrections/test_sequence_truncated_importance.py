from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from delta_lightning.corrections import SequenceTruncatedImportance
from delta_lightning.errors import ConfigError
from delta_lightning.functional.corrections import row_sum
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import Scored, mixed
from delta_lightning.types import with_mask
from support import reference_corrections as reference
from support.mismatch import EXTREME, WORLDS, check_reference, correct, log_ratios, per_row, weights, world_of


@pytest.mark.parametrize("part", [SequenceTruncatedImportance(cap=0.5), SequenceTruncatedImportance(against="raw")])
def test_laws(part: SequenceTruncatedImportance) -> None:
    check_correction(part)


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
@pytest.mark.parametrize("cap", [2.0, 0.05])
def test_equals_the_reference(world: Scored, tolerance: float, cap: float) -> None:
    wanted = reference.sequence_truncated(log_ratios(world), cap)
    check_reference(SequenceTruncatedImportance(cap=cap), wanted, world, tolerance)


def test_product_over_the_row() -> None:
    got = weights(SequenceTruncatedImportance(), [[math.log(1.5), math.log(0.8)], [math.log(2.0), math.log(3.0)]])
    assert got[0] == pytest.approx([1.2, 1.2], abs=1e-6) and got[1] == [2.0, 2.0]


def test_the_sum_is_held_and_not_the_tokens() -> None:
    """+50 and -50 nats cancel; held one by one they would too, so a third token tells the difference."""
    assert weights(SequenceTruncatedImportance(cap=10.0), [[50.0, -49.0]])[0] == pytest.approx([math.e] * 2, rel=1e-5)
    world = world_of(EXTREME)
    got = per_row(correct(SequenceTruncatedImportance(cap=1e30), world).weights_BT, world)
    assert got[1] == pytest.approx([math.exp(20)]) and got[2] == pytest.approx([math.exp(-20)])


def test_a_masked_token_is_no_factor_and_an_empty_row_is_fine() -> None:
    world = mixed()
    last_BT = torch.zeros_like(world.batch.loss_mask_BT)
    last_BT[1, world.batch.loss_mask_BT[1].nonzero()[-1]] = True
    rows = log_ratios(world)
    wanted = reference.ratio(math.fsum(rows[1][:-1]))
    smaller = world.without(world.batch.sequence_ids_B == 0)
    smaller = replace(smaller, batch=with_mask(smaller.batch, smaller.batch.loss_mask_BT & ~last_BT))
    got = correct(SequenceTruncatedImportance(cap=1e9), smaller).weights_BT
    assert got[1].max().item() == pytest.approx(wanted, rel=1e-6) and not bool(got[0].any())


def test_float32_sums_in_float64() -> None:
    """In float32 the second token would not change the sum."""
    d_BT = torch.tensor([[8.0, 2.0**-30]])
    assert row_sum(d_BT, torch.ones_like(d_BT, dtype=torch.bool)).item() == 8 + 2.0**-30


def test_refuses_fields_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"correction.cap"):
        SequenceTruncatedImportance(cap=-1.0)
    assert SequenceTruncatedImportance().cap == 2.0
