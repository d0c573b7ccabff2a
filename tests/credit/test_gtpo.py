from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.credit import GTPO
from delta_lightning.errors import ConfigError
from delta_lightning.functional.group_entropy import Cells, position_shares
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import PROMPT, Scored, degenerate, make_batch, mixed, scored
from delta_lightning.types import Need
from support import reference_gtpo as reference

Normaliser = Literal["side", "group", "none"]
NORMALISERS: list[Normaliser] = list(get_args(Normaliser))


def shift(part: GTPO, world: Scored) -> torch.Tensor:
    credit = part.credit(View(world))
    assert credit.shift_BT is not None and not bool(credit.scale_BT.any())
    return credit.shift_BT


def with_entropies(rows: list[list[float]], rewards: list[float], dtype: torch.dtype = torch.float64) -> Scored:
    """One prompt; entropies of the answers' tokens as given."""
    world = scored(make_batch([len(row) for row in rows], rewards=rewards, groups=[0] * len(rows)), rewards, dtype=dtype)
    entropies_BT = torch.zeros_like(world.entropies_BT)
    for row, values in enumerate(rows):
        entropies_BT[row, PROMPT : PROMPT + len(values)] = torch.tensor(values, dtype=dtype)
    return replace(world, entropies_BT=entropies_BT)


def test_golden_values() -> None:
    """Two right answers of 2 and 1 tokens, two wrong ones of 1 and 2, shares by hand."""
    world = with_entropies([[1.0, 0.5], [3.0], [0.5], [1.0, 2.0]], [1, 1, 0, 0])
    got = shift(GTPO(normaliser="none"), world)[:, PROMPT:]
    right = [[1 + 0.1 * 2 * 1 / 4, 1.1, 0], [1 + 0.1 * 2 * 3 / 4, 0, 0]]
    wrong = [[-1 - 0.1 * 2 * 2 / 3, 0, 0], [-1 - 0.1 * 2 * 1 / 3, -1.1, 0]]
    torch.testing.assert_close(got, torch.tensor(right + wrong).double(), rtol=0, atol=1e-7)
    sided = shift(GTPO(eps=1e-12), world)[:, PROMPT:]  # right 1.05, 1.1, 1.15: deviations -1, 0, 1 over sqrt(2 / 3)
    assert sided[:2, :2].flatten().tolist() == pytest.approx([-(1.5**0.5), 0, 1.5**0.5, 0], abs=1e-9)
    assert sided[2, 0] == pytest.approx(-(1.5**0.5)) and sided[3, 0] == pytest.approx(1.5**0.5)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("one_sided", ["zero", "shaped"])
def test_equals_the_reference_and_obeys_the_laws(normaliser: Normaliser, one_sided: Literal["zero", "shaped"]) -> None:
    part = GTPO(normaliser=normaliser, one_sided=one_sided)
    check_credit(part)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for seed in range(3):
            world = mixed(dtype, seed=seed)
            got = shift(part, world)
            assert got.dtype == dtype
            wanted = torch.tensor(reference.advantages(world, normaliser, one_sided=one_sided), dtype=torch.float64)
            torch.testing.assert_close(got.double(), wanted, rtol=0, atol=tolerance)
            assert bool(got.any())


def test_other_weights_and_rewards_that_are_not_one() -> None:
    rewards = [2.0, 0.5, -1.0, 0.0, 1.0, 0.0]
    world = scored(make_batch([3, 4, 2, 5, 1, 3], rewards=rewards, groups=[0] * 6), rewards)
    values = {
        at: x
        for sides in reference.shaped(world, alpha1=0.7, alpha2=0.4, floor=0.2)
        for side in sides
        for at, x in side.items()
    }
    got = shift(GTPO(reward_weight=0.7, entropy_weight=0.4, entropy_floor=0.2, normaliser="none"), world)
    assert len(values) == int(world.batch.loss_mask_BT.sum())
    for at, value in values.items():
        assert float(got[at]) == pytest.approx(value, abs=1e-12)


def test_holes_in_the_mask_move_later_tokens_up() -> None:
    """Positions count trained tokens: without its first token an answer meets the others one position earlier."""
    whole = with_entropies([[1.0, 2.0], [9.0, 3.0, 4.0], [1.0]], [1, 1, 0])
    mask_BT = whole.batch.loss_mask_BT.clone()
    mask_BT[1, PROMPT] = False
    holed = shift(GTPO(normaliser="none"), replace(whole, batch=replace(whole.batch, loss_mask_BT=mask_BT)))
    short = shift(GTPO(normaliser="none"), with_entropies([[1.0, 2.0], [3.0, 4.0], [1.0]], [1, 1, 0]))
    assert torch.equal(holed[1, PROMPT + 1 : PROMPT + 3], short[1, PROMPT : PROMPT + 2]) and torch.equal(
        holed[0, :4], short[0, :4]
    )


@given(st.lists(st.lists(st.floats(1e-3, 20), min_size=1, max_size=6), min_size=1, max_size=5), st.booleans())
@settings(max_examples=50, deadline=None)
def test_shares_have_mean_one_at_every_position(rows: list[list[float]], right: bool) -> None:
    world = with_entropies(rows, [1.0 if right else 0.0] * len(rows))
    batch = world.batch
    cells = Cells.of(batch.loss_mask_BT, batch.group_ids_B, batch.rewards_B > 0)
    shares_BT = position_shares(world.entropies_BT, cells)
    alive_T = batch.loss_mask_BT.sum(0)
    torch.testing.assert_close(shares_BT.sum(0), alive_T.double(), rtol=0, atol=1e-12)
    assert bool((shares_BT <= alive_T + 1e-12).all())


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_each_pool_has_mean_zero_and_only_pooled_sides_tell_right_from_wrong(normaliser: Normaliser) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.rand(9, generator=generator).tolist() for _ in range(8)]
    got = shift(GTPO(normaliser=normaliser, eps=1e-12), with_entropies(rows, [1, 1, 1, 0, 0, 0, 0, 0]))[:, PROMPT : PROMPT + 9]
    right, wrong = got[:3], got[3:]
    if normaliser == "side":
        for pool in (right, wrong):
            assert float(pool.mean()) == pytest.approx(0, abs=1e-12)
            assert float(pool.std(correction=0)) == pytest.approx(1, abs=1e-9)
    elif normaliser == "group":
        assert float(got.mean()) == pytest.approx(0, abs=1e-12) and float(got.std(correction=0)) == pytest.approx(1, abs=1e-9)
        assert float(right.min()) > 0 > float(wrong.max())
    else:
        assert float(right.mean()) == pytest.approx(1.1) and float(wrong.mean()) == pytest.approx(-1.1)


def test_certain_wrong_tokens_are_punished_most_and_uncertain_right_ones_praised() -> None:
    got = shift(GTPO(normaliser="group"), with_entropies([[0.1], [2.0], [0.1], [2.0]], [1, 1, 0, 0]))[:, PROMPT]
    assert float(got[1]) > float(got[0]) > 0 > float(got[3]) > float(got[2])


def test_entropies_below_the_floor_are_one_entropy() -> None:
    """0, rounding below 0 and anything below the floor: no token stands out by rounding, and 1/H is finite."""
    for dtype in (torch.float32, torch.float64):
        flat = with_entropies([[0.0], [-1e-7], [9e-4], [0.0], [1e-8], [-1e-6]], [1, 1, 1, 0, 0, 0], dtype)
        assert shift(GTPO(normaliser="none"), flat)[:, PROMPT].tolist() == pytest.approx([1.1] * 3 + [-1.1] * 3, rel=1e-6)
        assert float(shift(GTPO(), flat).abs().max()) < 1e-6
    noisy = with_entropies([[0.5], [0.5 + 1e-7], [0.5], [0.5 - 1e-7]], [1, 1, 0, 0])
    assert float(shift(GTPO(), noisy).abs().max()) < 1e-3, "first tokens of one prompt differ by rounding only"


def test_the_advantage_and_shaping_do_not_matter() -> None:
    world = mixed()
    other = world.with_advantages(-3 * world.advantages + 1)
    other = replace(other, batch=replace(other.batch, rewards_B=-other.batch.rewards_B))
    assert torch.equal(shift(GTPO(), other), shift(GTPO(), world))
    assert not torch.equal(shift(GTPO(correct_above=-1.0, one_sided="shaped"), world), shift(GTPO(one_sided="shaped"), world))


def test_groups_of_one_side() -> None:
    world = with_entropies([[0.1, 0.4], [0.3]], [1, 1])
    assert not bool(shift(GTPO(), world).any())
    assert bool(shift(GTPO(one_sided="shaped"), world).any())
    masked = with_entropies([[0.1, 0.4], [0.3], [0.5]], [1, 1, 0]).without(torch.tensor([False, False, True]))
    assert not bool(shift(GTPO(), masked).any()), "a side whose tokens are masked is not there"


def test_answers_without_a_verdict_are_in_no_statistic() -> None:
    """Even if somebody left their tokens in the mask."""
    world = with_entropies([[0.1, 0.4], [0.3, 2.0], [0.5], [0.2], [0.7, 0.9]], [1, 1, 0, 0, 0])
    valid_B = torch.tensor([True, True, True, True, False])
    got = shift(GTPO(), replace(world, batch=replace(world.batch, valid_B=valid_B)))
    assert not bool(got[4].any())
    assert torch.equal(got[:4], shift(GTPO(), world.without(~valid_B))[:4])


def test_degenerate_batches() -> None:
    """One answer a side has nothing to compare with: exactly 0. Advantages do not matter."""
    for name in ("all tokens masked", "one token", "one token a side", "no rows"):
        assert not bool(shift(GTPO(), degenerate()[name]).any()), name
    pair = shift(GTPO(normaliser="group"), degenerate()["one token a side"])[:, PROMPT]
    assert pair.tolist() == pytest.approx([1, -1], abs=1e-3)
    assert torch.equal(shift(GTPO(), degenerate()["no advantage"]), shift(GTPO(), mixed()))


def test_answers() -> None:
    part = GTPO()
    assert part.needs() == {Need.ENTROPY} and part.additive() and part.token_level()
    assert not part.per_response() and not part.cut_dependent()
    world = mixed()
    wide = world.with_advantages(world.advantages[:, None] * world.batch.loss_mask_BT)
    assert torch.equal(shift(part, wide), shift(part, world))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward_weight": -1.0}, "reward_weight: wanted at least 0"),
        ({"entropy_weight": float("nan")}, "entropy_weight"),
        ({"eps": 0.0}, "eps: wanted above 0"),
        ({"entropy_floor": 0.0}, "entropy_floor: wanted above 0"),
        ({"normaliser": "batch"}, "normaliser: wanted side, group, none, got 'batch'"),
        ({"one_sided": "keep"}, "one_sided: wanted zero, shaped"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"credit.GTPO.{message}"):
        GTPO(**fields)  # type: ignore[arg-type]
