from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import FIPO, ClippedSurrogate
from delta_lightning.testing.laws import check_weighting
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import Scored, make_batch, mixed, scored
from delta_lightning.types import Need
from support import reference_weightings as reference
from support.weightings import check_update, moved, update

VARIANTS = {
    "7b": FIPO(low=0.8, safety_ratio=3.0),
    "paper's safety rule": FIPO(safe_low=1.0, safety_ratio=3.0),
    "nothing dropped": FIPO(max_dual_clipped=None),
    "drop at the first": FIPO(max_dual_clipped=0, dual_clip=2.0),
    "normalised": FIPO(normalise="mini_batch", low=0.5, high=3.0),
    "normalised, nothing dropped": FIPO(normalise="mini_batch", max_dual_clipped=None),
    "unbounded": FIPO(low=0.0, high=10.0, half_life=1.0),
}


@pytest.mark.parametrize("part", VARIANTS.values(), ids=VARIANTS.keys())
def test_laws_of_the_variants(part: FIPO) -> None:
    check_weighting(part)


@pytest.mark.parametrize("part", [FIPO(), *(VARIANTS[name] for name in ("7b", "drop at the first", "normalised"))])
def test_one_result_for_any_cut_and_any_number_of_ranks(part: FIPO) -> None:
    check_update(part)


def test_exactly_one_at_the_old_policy() -> None:
    for dtype in (torch.float32, torch.float64):
        world = mixed(dtype)
        weights_BT = FIPO(low=0.5).weights(world.experience(), world.scores(slice(0, 12)), None)
        assert weights_BT.dtype == dtype
        assert torch.equal(weights_BT, world.batch.loss_mask_BT.to(dtype))


@pytest.mark.parametrize("part", [FIPO(), VARIANTS["7b"], VARIANTS["drop at the first"], VARIANTS["unbounded"]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_reference_row_by_row(part: FIPO, dtype: torch.dtype, tolerance: float) -> None:
    world = mixed(dtype)
    now = moved(world)
    weights_BT, left, statistics = update(part, View(world))
    assert statistics is not None
    changes_BT = (now.logprobs_BT - world.logprobs_BT).double().numpy()
    dropped = 0
    for row, mask in enumerate(world.batch.loss_mask_BT.tolist()):
        advantages = [float(world.advantages[row])] * len(mask)
        keeps = reference.fipo_keeps(
            changes_BT[row], advantages, mask, dual_clip=part.dual_clip, most=part.max_dual_clipped or 0
        )
        wanted = reference.fipo(
            changes_BT[row], advantages, mask, half_life=part.half_life, low=part.low, high=part.high,
            dual_clip=part.dual_clip, safety=part.safety_ratio,
        )  # fmt: skip
        assert left.batch.loss_mask_BT[row].tolist() == [trained and keeps for trained in mask]
        np.testing.assert_allclose(weights_BT[row].double().numpy(), wanted * keeps, rtol=0, atol=tolerance)
        dropped += any(mask) and not keeps
    trained = int(world.batch.loss_mask_BT.any(1).sum())
    assert float(statistics.values["dropped_share"]) == pytest.approx(dropped / trained)
    assert part != VARIANTS["drop at the first"] or dropped > 0


def one_row(ratios: list[float], advantage: float) -> tuple[Scored, Scored]:
    """A row under the old policy and under one at the given ratios."""
    world = scored(make_batch([len(ratios)], rewards=[1.0], groups=[0]), [advantage])
    change_BT = torch.zeros_like(world.logprobs_BT)
    change_BT[world.batch.loss_mask_BT] = torch.tensor(ratios, dtype=torch.float64).log()
    return world, replace(world, logprobs_BT=world.logprobs_BT + change_BT)


def weights_of(part: FIPO, ratios: list[float], advantage: float) -> list[float]:
    world, now = one_row(ratios, advantage)
    weights_BT = part.weights(world.experience(), now.scores(slice(0, 1)), None)
    return list(weights_BT[world.batch.loss_mask_BT].tolist())


def test_golden() -> None:
    assert weights_of(FIPO(), [0.5, 0.9, 1, 1.25, 2], 1.0) == pytest.approx([1.049667, 1.2, 1.2, 1.2, 1.2], abs=1e-6)


def test_safety_rule() -> None:
    """It takes the strengthening from tokens that have become likelier though their advantage is negative."""
    ratios = [4.0, 1.0, 1.5]
    strict = FIPO(safety_ratio=3.0)
    assert weights_of(strict, ratios, -1.0) == [1.0, 1.2, 1.2]
    assert weights_of(strict, ratios, 1.0) == [1.2, 1.2, 1.2]
    assert weights_of(FIPO(), ratios, -1.0) == [1.2, 1.2, 1.2]
    falling = [4.0, 1e-4, 1.0]
    assert weights_of(FIPO(safety_ratio=3.0, low=0.5), falling, -1.0)[0] == 0.8
    assert weights_of(FIPO(safety_ratio=3.0, low=0.5, safe_low=1.0), falling, -1.0)[0] == 1.0


@pytest.mark.parametrize(("beyond", "advantage", "kept"), [(1, -1.0, True), (2, -1.0, False), (2, 1.0, True)])
def test_a_negative_sequence_with_two_runaway_tokens_leaves(beyond: int, advantage: float, kept: bool) -> None:
    world, now = one_row([10.5] * beyond + [1.0] * 3, advantage)
    statistics = FIPO().statistics(world.experience(), View(now))
    assert statistics is not None and statistics.keep_BT is not None
    assert torch.equal(statistics.keep_BT, world.batch.loss_mask_BT & kept)
    # The rule counts the very tokens that the loss calls dual-clipped.
    clipped_BT = ClippedSurrogate().metrics(world.experience(), now.scores(slice(0, 1)))["clip_dual_share"]
    assert int(clipped_BT.sum()) == (beyond if advantage < 0 else 0)


def test_the_sign_is_that_of_the_token_advantage() -> None:
    """Credit that turns the sign turns the branch of the loss, and with it both rules."""
    world, now = one_row([10.5, 10.5, 1.0], 1.0)
    flipped = world.experience(-world.batch.loss_mask_BT.double())
    statistics = FIPO().statistics(flipped, View(now))
    assert statistics is not None and statistics.keep_BT is not None
    assert not bool(statistics.keep_BT.any())


def test_normalised_weights_have_mean_one_over_the_tokens_left() -> None:
    part = FIPO(normalise="mini_batch", low=0.5, high=3.0, max_dual_clipped=0, dual_clip=2.0)
    weights_BT, left, statistics = update(part, View(mixed()))
    mask_BT = left.batch.loss_mask_BT
    assert statistics is not None and float(statistics.values["dropped_share"]) > 0
    assert float(weights_BT[mask_BT].mean()) == pytest.approx(1.0, abs=1e-12)
    plain_BT, _, _ = update(replace(part, normalise="none"), View(mixed()))
    assert float(plain_BT[mask_BT].mean()) == pytest.approx(float(statistics.values["mean_weight"]), abs=1e-12)
    assert abs(float(statistics.values["mean_weight"]) - 1) > 0.01


def test_masks_nothing_and_normalises_nothing_in_an_empty_mini_batch() -> None:
    world = mixed()
    empty = world.without(torch.ones_like(world.batch.valid_B))
    part = FIPO(normalise="mini_batch")
    for poor in (empty, world.rows(slice(0, 0))):
        statistics = part.statistics(poor.experience(), View(poor))
        assert statistics is not None
        assert {name: float(value) for name, value in statistics.values.items()} == {"mean_weight": 1.0, "dropped_share": 0.0}


@pytest.mark.parametrize("log_ratio", [50.0, -50.0])
def test_extreme_log_ratios(log_ratio: float) -> None:
    """Rows far beyond the clip: left out of the sum above it, the smallest weight below it."""
    part = FIPO(low=0.8, half_life=1e4)
    weights = weights_of(part, [math.exp(log_ratio)] * 6, 1.0)
    assert weights == ([1.0] * 6 if log_ratio > 0 else [0.8] * 6)


def test_passes_over_the_mini_batch_only_where_something_needs_it() -> None:
    assert FIPO().needs() == {Need.MINI_BATCH}
    assert FIPO(max_dual_clipped=None).needs() == frozenset()
    assert FIPO(max_dual_clipped=None, normalise="mini_batch").needs() == {Need.MINI_BATCH}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"half_life": 0.0}, "weighting.half_life"),
        ({"low": 1.1}, "weighting.low"),
        ({"high": 0.9}, "weighting.high"),
        ({"high": float("inf")}, "weighting.high"),
        ({"dual_clip": 1.0}, "weighting.dual_clip"),
        ({"max_dual_clipped": -1}, "weighting.max_dual_clipped"),
        ({"safety_ratio": 0.5}, "weighting.safety_ratio"),
        ({"safe_low": -0.1}, "weighting.safe_low"),
        ({"safe_high": 0.5}, "weighting.safe_high"),
        ({"normalise": "sequence"}, "weighting.normalise"),
        ({"log_ratio_clamp": float("nan")}, "weighting.log_ratio_clamp"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FIPO(**fields)  # type: ignore[arg-type]


def test_defaults_are_the_published_script() -> None:
    part = FIPO()
    assert (part.half_life, part.low, part.high, part.safety_ratio) == (32.0, 1.0, 1.2, 10.0)
    assert (part.dual_clip, part.max_dual_clipped, part.safe_low, part.safe_high) == (10.0, 1, 0.8, 1.0)
    assert part.token_level()
