from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.corrections import MaskedImportance
from delta_lightning.errors import ConfigError
from delta_lightning.functional.corrections import within
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import Scored
from support import reference_corrections as reference
from support.mismatch import EXTREME, WORLDS, check_reference, correct, log_ratios, weights, world_of

BANDS = [(0.0, 3.0), (0.5, 1.2), (0.0, 1.1)]


@pytest.mark.parametrize(("low", "high"), BANDS)
def test_laws(low: float, high: float) -> None:
    check_correction(MaskedImportance(low=low, high=high))


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
@pytest.mark.parametrize(("low", "high"), BANDS)
def test_equals_the_reference(world: Scored, tolerance: float, low: float, high: float) -> None:
    rows = log_ratios(world)
    wanted = reference.masked(rows, low, high)
    check_reference(MaskedImportance(low=low, high=high), wanted, world, tolerance)
    # The worlds must have something to drop, or this says nothing.
    assert high == 3.0 or any(value == 0 for row in wanted for value in row)


def test_outside_the_band_leaves_the_mask() -> None:
    rows = [[math.log(r) for r in (0.4, 0.6, 1.0, 2.9, 3.1)]]
    assert weights(MaskedImportance(), rows)[0] == pytest.approx([0.4, 0.6, 1.0, 2.9, 0.0], abs=1e-6)
    assert weights(MaskedImportance(low=0.5), rows)[0] == pytest.approx([0.0, 0.6, 1.0, 2.9, 0.0], abs=1e-6)


def test_everything_may_leave() -> None:
    got = correct(MaskedImportance(low=0.9, high=1.1), world_of([[3.0, -3.0], [5.0]]))
    assert not bool(got.mask_BT.any()) and not bool(got.weights_BT.any())


def test_extreme_ratios_leave() -> None:
    got = weights(MaskedImportance(low=0.1), EXTREME)
    assert got[:4] == [[0, 0], [0], [0], [1, 1, 1]]
    assert got[4] == pytest.approx([math.exp(0.5), math.exp(-0.5)])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(0, 0.99), st.floats(1.01, 9))
def test_a_weight_is_in_the_band_or_zero(row: list[float], low: float, high: float) -> None:
    got = weights(MaskedImportance(low=low, high=high), [row])[0]
    assert all(weight == 0 or low * (1 - 1e-12) <= weight <= high * (1 + 1e-12) for weight in got)


def test_the_bounds_are_inside_wherever_the_token_stands() -> None:
    """`exp` rounds by place in the tensor; the decision must not."""
    for bound in (0.3, 0.7, 1.1, 3.0):
        d = torch.full((1, 37), math.log(bound), dtype=torch.float64)
        assert bool(within(d, 0.0, bound).all()) and bool(within(d, bound, 9.0).all())


@pytest.mark.parametrize("band", [(-0.1, 3.0), (1.0, 3.0), (0.5, 1.0), (float("nan"), 3.0), (0.5, float("nan"))])
def test_refuses_a_band_without_one(band: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"correction.low"):
        MaskedImportance(low=band[0], high=band[1])
