from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.functional.future_kl import beyond_dual_clip, discounted_suffix_sums, influence_weights
from support import reference_weightings as reference

RATIOS = torch.tensor([[0.5, 0.9, 1, 1.25, 2]], dtype=torch.float64)
ALL = torch.ones(1, 5, dtype=torch.bool)


@given(
    length=st.integers(0, 70),
    block=st.integers(2, 20),
    half_life=st.floats(0.1, 200),
    seed=st.integers(0, 2**31),
    rows=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_suffix_sums_are_the_recursion(length: int, block: int, half_life: float, seed: int, rows: int) -> None:
    values_BT = torch.randn(rows, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decay = 2 ** (-1 / half_life)
    got_BT = discounted_suffix_sums(values_BT, decay=decay, block=block)
    later_B = torch.zeros(rows, dtype=torch.float64)
    assert got_BT.shape == values_BT.shape
    for t in reversed(range(length)):
        later_B = values_BT[:, t] + decay * later_B
        torch.testing.assert_close(got_BT[:, t], later_B, rtol=1e-12, atol=1e-12)


def test_refuses_a_block_that_never_ends() -> None:
    with pytest.raises(ValueError, match="block: wanted at least 2"):
        discounted_suffix_sums(torch.zeros(1, 4), decay=0.5, block=1)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_suffix_sums_at_the_ends_of_the_range(decay: float) -> None:
    ones_BT = torch.ones(1, 300, dtype=torch.float64)
    first = float(discounted_suffix_sums(ones_BT, decay=decay, block=16)[0, 0])
    assert first == pytest.approx({0.0: 1.0, 0.5: 2.0, 1.0: 300.0}[decay], rel=1e-12)


def test_long_rows_stay_exact() -> None:
    """20480 columns against a forward sum in float64: no power of the decay overflows or is divided by."""
    values_BT = torch.randn(2, 20480, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got_BT = discounted_suffix_sums(values_BT, decay=2 ** (-1 / 32))
    later_B = torch.zeros(2, dtype=torch.float64)
    for t in reversed(range(20480)):
        later_B = values_BT[:, t] + 2 ** (-1 / 32) * later_B
        if t % 997 == 0:
            torch.testing.assert_close(got_BT[:, t], later_B, rtol=0, atol=1e-12)


def test_half_life() -> None:
    impulse_BT = torch.zeros(1, 200, dtype=torch.float64)
    impulse_BT[0, 150] = 1
    sums_T = discounted_suffix_sums(impulse_BT, decay=2 ** (-1 / 32))[0]
    assert float(sums_T[150 - 32]) == pytest.approx(0.5, abs=1e-14)
    assert float(sums_T[150 - 64]) == pytest.approx(0.25, abs=1e-14)
    assert not bool(sums_T[151:].any())


@pytest.mark.parametrize(
    ("half_life", "wanted"),
    [
        (1.0, [-0.674613, 0.037069, 0.284859, 0.569717, 0.693147]),
        (32.0, [0.048473, 0.757859, 0.882122, 0.901438, 0.693147]),
    ],
)
def test_golden_future(half_life: float, wanted: list[float]) -> None:
    sums_BT = discounted_suffix_sums(RATIOS.log(), decay=2 ** (-1 / half_life))
    torch.testing.assert_close(sums_BT[0], torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-6)


def test_golden_weights() -> None:
    weights_BT = influence_weights(RATIOS.log(), torch.ones_like(RATIOS), ALL)
    wanted = torch.tensor([1.049667, 1.2, 1.2, 1.2, 1.2], dtype=torch.float64)
    torch.testing.assert_close(weights_BT[0], wanted, rtol=0, atol=1e-6)


def test_exactly_one_at_the_old_policy() -> None:
    for low in (0.8, 1.0):
        weights_BT = influence_weights(torch.zeros(3, 500), -torch.ones(3, 500), torch.ones(3, 500, dtype=torch.bool), low=low)
        assert torch.equal(weights_BT, torch.ones(3, 500, dtype=torch.float64))


# A grid, so that no log-ratio falls on a threshold, where the last digit of exp and log would decide.
row = st.lists(
    st.tuples(st.integers(-160, 160).map(lambda n: n / 8), st.sampled_from([-1.5, 0.0, 0.7]), st.booleans()),
    min_size=1,
    max_size=25,
)


@given(
    row=row, half_life=st.floats(0.2, 100), low=st.floats(0, 1), high=st.floats(1, 5), safety=st.sampled_from([1.3, 3.0, 10.0])
)
@settings(max_examples=80, deadline=None)
def test_equals_the_reference(
    row: list[tuple[float, float, bool]], half_life: float, low: float, high: float, safety: float
) -> None:
    changes, advantages, mask = (list(column) for column in zip(*row, strict=True))
    got_BT = influence_weights(
        torch.tensor([changes], dtype=torch.float64), torch.tensor([advantages]), torch.tensor([mask]),
        half_life=half_life, low=low, high=high, safety_ratio=safety, dual_clip=10.0,
    )  # fmt: skip
    wanted = reference.fipo(changes, advantages, mask, half_life=half_life, low=low, high=high, safety=safety)
    np.testing.assert_allclose(got_BT[0].numpy(), wanted, rtol=1e-9, atol=1e-12)
    hits_B = beyond_dual_clip(torch.tensor([changes]), torch.tensor([advantages]), torch.tensor([mask]), dual_clip=10.0)
    assert (int(hits_B) <= 1) == reference.fipo_keeps(changes, advantages, mask, dual_clip=10.0, most=1)


def test_a_runaway_token_leaves_the_sum() -> None:
    """Its own weight and that of the tokens before it are as if it had not moved."""
    moved = torch.tensor([[0.01, 0.02, math.log(11.0), 0.03]], dtype=torch.float64)
    still = moved.clone()
    still[0, 2] = 0
    options = {"low": 0.0, "high": 100.0}
    positive = torch.ones(1, 4)
    got, wanted = (influence_weights(value, positive, ALL[:, :4], **options) for value in (moved, still))
    assert torch.equal(got, wanted)


def test_columns_outside_the_mask_keep_their_distance() -> None:
    """A tool's tokens between two trained ones count as distance and as nothing else."""
    change = torch.tensor([[0.0, 9.0, -9.0, 0.1]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True]])
    weights_BT = influence_weights(change, torch.ones(1, 4), mask, half_life=3.0)
    assert weights_BT[0].tolist() == pytest.approx([math.exp(0.05), 0, 0, math.exp(0.1)], abs=1e-12)


def test_padding_changes_nothing() -> None:
    change_BT = 0.1 * torch.randn(3, 130, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask_BT = torch.ones(3, 130, dtype=torch.bool)
    pad = torch.nn.functional.pad
    wanted = influence_weights(change_BT, torch.ones(3, 130), mask_BT, low=0.5, high=2.0)
    wide = influence_weights(pad(change_BT, (0, 400), value=5.0), torch.ones(3, 530), pad(mask_BT, (0, 400)), low=0.5, high=2.0)
    torch.testing.assert_close(wide[:, :130], wanted, rtol=0, atol=1e-14)
    assert not bool(wide[:, 130:].any())
