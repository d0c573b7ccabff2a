from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.corrections import TruncatedImportance
from delta_lightning.errors import ConfigError
from delta_lightning.testing.laws import check_correction
from delta_lightning.testing.worlds import Scored
from support import reference_corrections as reference
from support.mismatch import EXTREME, WORLDS, check_reference, correct, log_ratios, per_row, weights, world_of

VARIANTS = [TruncatedImportance(), TruncatedImportance(cap=0.8), TruncatedImportance(against="raw", log_ratio_clamp=0.3)]


@pytest.mark.parametrize("part", VARIANTS)
def test_laws(part: TruncatedImportance) -> None:
    check_correction(part)


@pytest.mark.parametrize(("world", "tolerance"), WORLDS)
@pytest.mark.parametrize("cap", [2.0, 0.8])
def test_equals_the_reference(world: Scored, tolerance: float, cap: float) -> None:
    check_reference(TruncatedImportance(cap=cap), reference.truncated(log_ratios(world), cap), world, tolerance)


def test_cuts_at_the_cap_and_not_below() -> None:
    got = weights(TruncatedImportance(), [[math.log(1.5), math.log(2.5), math.log(0.25), 0.0]])
    assert got[0] == pytest.approx([1.5, 2.0, 0.25, 1.0], abs=1e-12)


def test_extreme_ratios_are_held_and_drop_nothing() -> None:
    world = world_of(EXTREME)
    got = correct(TruncatedImportance(cap=1e30), world)
    assert got.weights_BT.max() == pytest.approx(math.exp(20))
    assert per_row(got.weights_BT, world)[2] == pytest.approx([math.exp(-20)])
    assert torch.equal(got.mask_BT, world.batch.loss_mask_BT)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(0.01, 10))
def test_weights_are_positive_at_most_the_cap_and_rise_with_the_ratio(row: list[float], cap: float) -> None:
    got = weights(TruncatedImportance(cap=cap), [sorted(row)])[0]
    assert all(0 < weight <= cap for weight in got)
    assert got == pytest.approx(sorted(got), rel=1e-12)  # equal ratios may differ by the rounding of exp


def test_raw_leaves_out_the_mass_that_top_p_keeps() -> None:
    """mu = raw / S on the tokens that are kept: against it every ratio is S times smaller."""
    world = world_of([[0.1, -0.2, 0.0]])
    kept = math.log(0.7)
    behaviour_BT = (world.batch.raw_logprobs_BT - kept) * world.batch.loss_mask_BT
    cut = replace(world, batch=replace(world.batch, behaviour_logprobs_BT=behaviour_BT))
    raw, really = correct(TruncatedImportance(against="raw"), cut), correct(TruncatedImportance(), cut)
    torch.testing.assert_close(raw.weights_BT, correct(TruncatedImportance(), world).weights_BT)
    torch.testing.assert_close(really.weights_BT, 0.7 * raw.weights_BT, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cap": 0.0}, "correction.cap"),
        ({"cap": float("nan")}, "correction.cap"),
        ({"against": "old"}, "correction.against"),
        ({"log_ratio_clamp": 0.0}, "correction.log_ratio_clamp"),
        ({"log_ratio_clamp": 100.0}, "correction.log_ratio_clamp"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TruncatedImportance(**fields)  # type: ignore[arg-type]


def test_defaults_are_published() -> None:
    assert TruncatedImportance() == TruncatedImportance(cap=2.0, against="behaviour", log_ratio_clamp=20.0)
    assert TruncatedImportance().needs() == frozenset()
