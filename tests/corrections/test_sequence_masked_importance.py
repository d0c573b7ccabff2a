from __future__ import annotations

import math

import pytest

from delta_lightning.corrections import SequenceMaskedImportance
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import Scored
from support import reference_corrections as reference
from support.mismatch import EXTREME, WORLDS, check_reference, log_ratios, weights

BANDS = [(0.0, 3.0), (0.5, 2.0), (0.0, 1.01)]


@pytest.mark.parametrize(("low", "high"), BANDS)
def test_laws(low: float, high: float) -> None:
    check_correction(SequenceMaskedImportance(low=low, high=high))


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
@pytest.mark.parametrize(("low", "high"), BANDS)
def test_equals_the_reference(world: Scored, tolerance: float, low: float, high: float) -> None:
    wanted = reference.sequence_masked(log_ratios(world), low, high)
    check_reference(SequenceMaskedImportance(low=low, high=high), wanted, world, tolerance)
    assert (low, high) != (0.5, 2.0) or {bool(sum(row)) for row in wanted if row} == {True, False}


def test_rejects_the_whole_row_and_keeps_the_product_elsewhere() -> None:
    rows = [[math.log(2.0), math.log(2.0)], [math.log(2.0), math.log(0.5)], [math.log(2.0), math.log(1.4)]]
    got = weights(SequenceMaskedImportance(), rows)
    assert got[0] == [0, 0]
    assert got[1] == pytest.approx([1, 1], abs=1e-6) and got[2] == pytest.approx([2.8, 2.8], abs=1e-6)


def test_extreme_ratios() -> None:
    got = weights(SequenceMaskedImportance(low=0.1), EXTREME)
    assert got[1:3] == [[0], [0]]
    assert got[0] == pytest.approx([1, 1], abs=1e-5) and got[3] == pytest.approx([1, 1, 1])


def test_refuses_a_band_without_one() -> None:
    with pytest.raises(ConfigError, match=r"correction.low"):
        SequenceMaskedImportance(low=1.5)
    assert (SequenceMaskedImportance().low, SequenceMaskedImportance().high) == (0.0, 3.0)
