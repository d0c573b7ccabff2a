from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from delta_lightning.errors import ConfigError
from delta_lightning.losses import ClipCov
from delta_lightning.testing.laws import check_weighting
from delta_lightning.testing.views import View, run_ranks
from delta_lightning.testing.worlds import Scored, make_batch, mixed, scored
from delta_lightning.types import Need
from support import reference_weightings as reference
from support.weightings import check_update, moved, update

WIDE = ClipCov(share=0.2, low=0.1, high=50.0)
PARTS = [
    ClipCov(),
    WIDE,
    ClipCov(share=1.0, low=0.1, high=1.0),
    ClipCov(share=1.0, low=-50.0, high=50.0),
    ClipCov(share=0.3, low=0, high=9, clip_low=0.2, clip_high=0.28),
]


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_laws_of_the_variants(part: ClipCov) -> None:
    check_weighting(part)
    check_update(part)


def candidates(part: ClipCov, world: Scored, now: Scored) -> list[bool]:
    mask_BT = world.batch.loss_mask_BT
    advantages = world.experience().raw_advantages_BT[mask_BT].double().tolist()
    logprobs = now.logprobs_BT[mask_BT].double().tolist()
    changes = (now.logprobs_BT - world.logprobs_BT)[mask_BT].double().tolist()
    return [
        part.low < covariance < part.high and not reference.clipped(change, advantage, low=part.clip_low, high=part.clip_high)
        for covariance, change, advantage in zip(
            reference.covariances(advantages, logprobs), changes, advantages, strict=True
        )
    ]  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_drops_the_number_asked_for_and_only_candidates(part: ClipCov, dtype: torch.dtype) -> None:
    world = mixed(dtype)
    mask_BT = world.batch.loss_mask_BT
    weights_BT, left, statistics = update(part, View(world))
    may = candidates(part, world, moved(world))
    dropped = (weights_BT[mask_BT] == 0).tolist()
    assert all(allowed for allowed, gone in zip(may, dropped, strict=True) if gone)
    assert sum(dropped) == min(sum(may), max(1, int(part.share * len(may))))
    assert torch.equal(left.batch.loss_mask_BT, mask_BT)
    assert statistics is not None
    assert (float(statistics.values["candidates"]), float(statistics.values["dropped"])) == (sum(may), sum(dropped))
    assert weights_BT.dtype == dtype


def test_the_tests_have_candidates() -> None:
    world = mixed()
    numbers = [sum(candidates(part, world, moved(world))) for part in PARTS]
    assert all(number > 1 for number in numbers)
    assert len(set(numbers)) == len(numbers)


def many(rows: int = 60, length: int = 40) -> Scored:
    """A mini-batch large enough for frequencies; half the rows are right."""
    batch = make_batch([length] * rows, rewards=[1.0, 0.0] * (rows // 2), groups=[0] * rows)
    return scored(batch, [1.0, -1.0] * (rows // 2))


def test_the_draw_is_uniform_over_candidates() -> None:
    """In 30 steps each of 4 classes of candidates, by position, is drawn about as often as it stands there."""
    world = many()
    part = ClipCov(share=0.05, low=0.0, high=50.0)
    drawn, there = torch.zeros(4), torch.zeros(4)
    for shift in range(30):
        batch = replace(world.batch, sequence_ids_B=world.batch.sequence_ids_B + 1000 * shift)
        view = View(replace(world, batch=batch))
        weights_BT, _, _ = update(part, view, size=1.0)
        mask_BT = world.batch.loss_mask_BT
        may_N = torch.tensor(candidates(part, view.world, moved(view.world, 1.0)))
        class_N = torch.arange(mask_BT.shape[1]).expand_as(mask_BT)[mask_BT] % 4
        drawn += torch.stack([((weights_BT[mask_BT] == 0) & (class_N == one)).sum() for one in range(4)])
        there += torch.stack([(may_N & (class_N == one)).sum() for one in range(4)])
    share = drawn / there
    # About 900 draws a class: the standard error of each share is 3 % of it.
    assert float((share / share.mean() - 1).abs().max()) < 0.15


def test_another_step_draws_other_tokens() -> None:
    world = many()
    part = ClipCov(share=0.05, low=0.0, high=50.0)
    later = replace(world, batch=replace(world.batch, sequence_ids_B=world.batch.sequence_ids_B + 1000))
    first, second = (update(part, View(one), size=0.0)[0] == 0 for one in (world, later))
    overlap = float((first & second & world.batch.loss_mask_BT).sum()) / float((first & world.batch.loss_mask_BT).sum())
    assert overlap < 0.3


def test_one_draw_for_ranks_that_hold_single_rows() -> None:
    """The seed that ranks agree on comes from a row that only one of them holds."""
    world = mixed()
    wanted, _, wanted_statistics = update(WIDE, View(world))

    def work(rank: int, ranks: object) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.arange(12)[rank::3]
        got, _, statistics = update(WIDE, View(world.rows(rows), ranks=ranks))  # type: ignore[arg-type]
        assert statistics is not None
        return got, {name: float(value) for name, value in statistics.values.items()}

    pieces = run_ranks(3, work)
    assert wanted_statistics is not None
    for rank, (got, values) in enumerate(pieces):
        assert torch.equal(got, wanted[rank::3])
        assert values == pytest.approx({name: float(value) for name, value in wanted_statistics.values.items()}, rel=1e-12)


def test_covariance_uses_the_raw_advantage_and_clipping_the_token_advantage() -> None:
    world = mixed()
    small = world.experience(0.01 * world.batch.loss_mask_BT)
    got, _, _ = update(WIDE, View(world), experience=small)
    wanted, _, _ = update(WIDE, View(world))
    assert torch.equal(got, wanted)
    part = ClipCov(share=1.0, low=-50.0, high=50.0, clip_low=0.2, clip_high=0.28)
    turned = world.experience(-1.0 * world.batch.loss_mask_BT)
    assert not torch.equal(update(part, View(world), experience=turned)[0], update(part, View(world))[0])


def test_minimum_of_none() -> None:
    weights_BT, _, _ = update(replace(WIDE, share=1e-6, minimum=0), View(mixed()))
    assert torch.equal(weights_BT.bool(), mixed().batch.loss_mask_BT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share": 0.0}, "weighting.share"),
        ({"low": 5.0}, "weighting.low"),
        ({"clip_low": 1.5}, "weighting.clip_low"),
        ({"clip_high": -0.1}, "weighting.clip_high"),
        ({"minimum": -1}, "weighting.minimum"),
    ],
)
def test_refuses_fields_out_of_range(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipCov(**fields)  # type: ignore[arg-type]


def test_defaults_are_the_published_method() -> None:
    assert ClipCov() == ClipCov(share=2e-4, low=1.0, high=5.0, clip_low=1.0, clip_high=1.0, minimum=1)
    assert ClipCov().needs() == {Need.MINI_BATCH}
