from __future__ import annotations

import math

import pytest

from delta_lightning.corrections import IcePop, MaskedImportance
from delta_lightning.testing.worlds import Scored
from support import reference_corrections as reference
from support.mismatch import WORLDS, check_reference, correct, log_ratios, weights, world_of


def test_published_bounds() -> None:
    assert (IcePop().low, IcePop().high) == (0.5, 5.0)
    assert weights(IcePop(), [[math.log(r) for r in (0.49, 0.51, 1, 4.9, 5.1)]])[0] == pytest.approx(
        [0, 0.51, 1, 4.9, 0], abs=1e-6
    )


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
def test_equals_the_reference(world: Scored, tolerance: float) -> None:
    check_reference(IcePop(), reference.masked(log_ratios(world), 0.5, 5.0), world, tolerance)


def test_is_masked_importance_with_other_bounds() -> None:
    world = world_of([[0.3, -1.0, 2.0]])
    one, other = correct(IcePop(), world), correct(MaskedImportance(low=0.5, high=5.0), world)
    assert (one.weights_BT - other.weights_BT).abs().max() == 0 and (one.mask_BT == other.mask_BT).all()
