from __future__ import annotations

import pytest

from delta_lightning.corrections import (
    CombinedCorrection,
    IcePop,
    NoCorrection,
    SequenceMaskedImportance,
    StatisticRejection,
    TruncatedImportance,
)
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import mixed
from support.mismatch import correct, weights

TWO = CombinedCorrection(rejection=IcePop(low=0.6, high=1.5), importance=SequenceMaskedImportance(high=1.5))


def test_laws() -> None:
    check_correction(TWO)
    check_correction(CombinedCorrection(rejection=StatisticRejection(high=0.3), importance=TWO))


def test_weights_multiply_and_masks_intersect() -> None:
    rows = [[0.1, 0.2], [0.001, 0.001], [3.0]]
    got = weights(CombinedCorrection(importance=TruncatedImportance(cap=1.0005)), rows)
    assert got == [[0, 0], pytest.approx([1.0005, 1.0005], abs=1e-12), [0]]


def test_order_does_not_matter_and_each_sees_the_whole_mask() -> None:
    world = mixed()
    one, other = correct(TWO, world), correct(CombinedCorrection(rejection=TWO.importance, importance=TWO.rejection), world)
    assert (one.weights_BT - other.weights_BT).abs().max() == 0
    parts = [correct(part, world) for part in (TWO.rejection, TWO.importance)]
    assert (one.mask_BT == (parts[0].mask_BT & parts[1].mask_BT)).all()
    assert bool((parts[0].mask_BT != parts[1].mask_BT).any())


def test_no_correction_changes_nothing() -> None:
    world = mixed()
    both = correct(CombinedCorrection(rejection=NoCorrection(), importance=IcePop()), world)
    assert (both.weights_BT == correct(IcePop(), world).weights_BT).all()
    assert TWO.needs() == frozenset()
