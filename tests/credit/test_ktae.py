from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delta_lightning.credit import KTAE
from delta_lightning.errors import ConfigError
from delta_lightning.functional import key_tokens
from delta_lightning.functional.key_tokens import Rule, Tables, effect_size, fisher_p, fisher_score, information_gain
from delta_lightning.interfaces import StepView
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import PROMPT, Scored, degenerate, make_batch, mixed, scored
from delta_lightning.types import RolloutBatch
from support import reference_ktae as reference

GOLDEN = [(6, 1, 2, 7), (8, 0, 0, 8), (4, 4, 4, 4), (8, 8, 0, 0), (1, 6, 7, 2)]
Quadruple = tuple[int, int, int, int]
VARIANTS = [
    KTAE(form="multiplicative"), KTAE(form="multiplicative", top=3.0), KTAE(tf_weight=0.0), KTAE(end_token="counted"),
    KTAE(fisher_weight=0.0, gain_weight=2.0), KTAE(gain_weight=0.0, ignored_ids=(3, 5)),
]  # fmt: skip


def tables(*quadruples: Quadruple) -> Tables:
    """(a, b, c, d): right and wrong answers with the id, right and wrong ones without."""
    a, b, c, d = torch.tensor(quadruples).unbind(1)
    return Tables(a, b, a + c, b + d)


def shift(part: KTAE, view: StepView) -> torch.Tensor:
    shift_BT = part.credit(view).shift_BT
    assert shift_BT is not None
    return shift_BT


def worlds() -> list[Scored]:
    """The mixed one, and one with answers long enough that ids repeat and one is cut at the limit."""
    generator = np.random.default_rng(0)
    long = make_batch(
        generator.integers(4, 30, 24).tolist(),
        rewards=generator.integers(0, 2, 24).tolist(),
        groups=[i // 8 for i in range(24)],
    )
    return [mixed(), scored(replace(long, truncated_B=torch.arange(24) % 5 == 0), generator.normal(size=24).tolist())]


def test_golden_values() -> None:
    got = tables(*GOLDEN)
    assert fisher_p(got)[0] == pytest.approx(0.040559, abs=5e-7)
    assert fisher_score(fisher_p(got))[0] == pytest.approx(0.922084, abs=5e-7)
    assert information_gain(got)[0] == pytest.approx(0.311278, abs=5e-7)
    assert effect_size(got)[0] == pytest.approx(0.685830, abs=5e-7)
    assert Rule().values(got).tolist() == pytest.approx([0.208372, 0.655725, 0, 0, -0.208372], abs=5e-7)
    assert Rule().values(got)[2:4].tolist() == [0, 0]


def all_tables(right: int, wrong: int) -> list[Quadruple]:
    return [(a, b, right - a, wrong - b) for a in range(right + 1) for b in range(wrong + 1)]


@pytest.mark.parametrize(("right", "wrong"), [(8, 8), (1, 15), (5, 11), (16, 16), (3, 61)])
def test_every_table_of_a_group_equals_the_exact_test(right: int, wrong: int) -> None:
    """Against integers; ties between mirror images are the common case at 8 and 8."""
    every = all_tables(right, wrong)
    got = fisher_p(tables(*every))
    assert got.tolist() == pytest.approx([reference.fisher(*one) for one in every], rel=1e-11)
    assert torch.equal(fisher_score(got) == 0, torch.tensor([reference.fisher(*one) == 1 for one in every]))
    assert information_gain(tables(*every)).tolist() == pytest.approx([reference.gain(*one) for one in every], abs=1e-13)
    wanted = [reference.value(*one, alpha=1, beta=2, top=0.5) for one in every]
    assert Rule(1.0, 2.0, 0.0, 0.5).values(tables(*every)).tolist() == pytest.approx(wanted, abs=1e-13)


@given(st.integers(1, 40), st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_value_is_odd_in_the_sides_and_signed_by_the_shares(right: int, wrong: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, right)), data.draw(st.integers(0, wrong))
    value, mirrored, without = Rule().values(
        tables((a, b, right - a, wrong - b), (b, a, wrong - b, right - a), (right - a, wrong - b, a, b))
    )
    assert float(value) == pytest.approx(-float(mirrored), abs=1e-12) == pytest.approx(-float(without), abs=1e-12)
    assert abs(float(value)) < 1
    if abs(float(value)) > 1e-12:
        assert (float(value) > 0) == (a * wrong > b * right)


def test_one_sided_and_empty_tables_say_nothing() -> None:
    poor = Tables(*torch.tensor([[2, 0, 2, 0], [0, 3, 0, 4], [0, 0, 0, 0]]).unbind(1))
    assert fisher_p(poor).tolist() == [1, 1, 1]
    for value in (information_gain(poor), effect_size(poor), Rule().values(poor)):
        assert value.tolist() == [0, 0, 0]
    assert Rule().values(Tables(*torch.zeros(4, 0))).shape == (0,)


def test_frequencies_equal_the_formula() -> None:
    uses = [(3, 1, 40, 50), (0, 2, 40, 50), (5, 5, 10, 90), (7, 0, 7, 3)]
    got = key_tokens.frequency_term(*torch.tensor(uses).unbind(1))
    assert got.tolist() == pytest.approx([reference.frequency(*one) for one in uses], rel=1e-12)
    assert key_tokens.frequency_term(*torch.tensor([[3, 0, 9, 0]]).unbind(1)).tolist() == [0]


@pytest.mark.parametrize("options", [{}, {"gamma": 1.0}, {"alpha": 0.5, "beta": 2.0, "gamma": 3.0, "top": 0.7}])
@pytest.mark.parametrize("ignored", [(), (3, 5)])
@pytest.mark.parametrize("end", ["ignored", "counted"])
def test_equals_the_reference(options: dict[str, float], ignored: tuple[int, ...], end: str) -> None:
    names = {"alpha": "fisher_weight", "beta": "gain_weight", "gamma": "tf_weight", "top": "top"}
    fields: dict[str, Any] = {"tf_weight": 0.0} | {names[key]: value for key, value in options.items()}
    part = KTAE(ignored_ids=ignored, end_token=end, **fields)  # type: ignore[arg-type]
    for world in worlds():
        wanted = reference.world_values(world, ignored=ignored, ignore_end=end == "ignored", options=options)
        got = part.credit(View(world))
        assert got.shift_BT is not None and got.shift_BT.dtype == torch.float32
        torch.testing.assert_close(got.shift_BT.double(), torch.tensor(wanted).double(), rtol=0, atol=1e-6)
        assert torch.equal(got.scale_BT, world.batch.loss_mask_BT.float())
        values = torch.tensor(wanted).double()
        factor = (1 + world.advantages.double().sign()[:, None] * values).clamp(min=0) * world.batch.loss_mask_BT
        multiplied = replace(part, form="multiplicative").credit(View(world))
        assert multiplied.shift_BT is None
        torch.testing.assert_close(multiplied.scale_BT.double(), factor, rtol=0, atol=1e-6)
    assert any(
        any(map(any, reference.world_values(world, ignored=(), ignore_end=True, options=options))) for world in worlds()
    ), "the worlds say something"


@pytest.mark.parametrize("part", VARIANTS, ids=repr)
def test_obeys_the_laws(part: KTAE) -> None:
    check_credit(part)


@pytest.mark.parametrize("block", [1, 40, 1 << 22])
def test_blocks_of_groups_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group at a time, or all at once; on three ranks that share every group, one of them without rows, bit for bit."""
    world = worlds()[1]
    wanted_BT = shift(KTAE(), View(world))
    monkeypatch.setattr(key_tokens, "BLOCK", block)
    assert torch.equal(shift(KTAE(), View(world)), wanted_BT)
    parts = [torch.arange(24)[::2], torch.arange(24)[1::2], torch.arange(0)]

    def work(rank: int, ranks: ThreadRank) -> torch.Tensor:
        return shift(KTAE(), View(world.rows(parts[rank]), ranks=ranks))

    assert torch.equal(torch.cat(run_ranks(3, work))[torch.cat(parts).argsort()], wanted_BT)


def fixed(ids: list[list[int]], rewards: list[float], **changes: torch.Tensor) -> Scored:
    """One prompt; the answers' ids as given."""
    batch = make_batch([len(answer) for answer in ids], rewards=rewards, groups=[0] * len(ids))
    tokens_BT = batch.token_ids_BT.clone()
    for row, answer in enumerate(ids):
        tokens_BT[row, PROMPT : PROMPT + len(answer)] = torch.tensor(answer)
    changed: RolloutBatch = replace(batch, token_ids_BT=tokens_BT, **changes)  # type: ignore[arg-type]
    return scored(changed, [1.0 if reward > 0 else -1.0 for reward in rewards])


def test_the_token_that_tells_right_from_wrong_and_repeats_count_once() -> None:
    """7 is in every right answer and in no wrong one, 8 in all, 9 in the wrong ones; 1 ends them all."""
    world = fixed([[8, 7, 7, 1], [7, 8, 1], [8, 9, 1], [9, 8, 1]], [1, 1, 0, 0])
    part = KTAE(tf_weight=0)
    got = shift(part, View(world))[:, PROMPT:]
    value = reference.value(2, 0, 0, 2)
    wanted = [[0, value, value, 0, 0], [value, 0, 0, 0, 0], [0, -value, 0, 0, 0], [-value, 0, 0, 0, 0]]
    torch.testing.assert_close(got.double(), torch.tensor(wanted).double(), rtol=0, atol=1e-7)


def test_what_is_outside_the_mask_and_prompts_are_not_counted() -> None:
    """The prompt's ids are random; a masked token leaves its answer without the id; a fully masked answer does not exist."""
    world = fixed([[7, 5], [6, 5], [6, 5], [7, 7]], [1, 0, 0, 0])
    mask_BT = world.batch.loss_mask_BT.clone()
    mask_BT[3] = False
    hidden = replace(world, batch=replace(world.batch, loss_mask_BT=mask_BT))
    got = shift(KTAE(tf_weight=0), View(hidden))
    assert float(got[0, PROMPT]) == pytest.approx(reference.value(1, 0, 0, 2), abs=1e-7)
    assert not bool(got[3].any())
    ids_BT = world.batch.token_ids_BT.clone()
    ids_BT[:, :PROMPT] = 7
    prompted = replace(hidden, batch=replace(hidden.batch, token_ids_BT=ids_BT))
    assert torch.equal(shift(KTAE(), View(prompted)), shift(KTAE(), View(hidden)))


def test_answers_without_a_verdict_are_in_no_count() -> None:
    world = fixed([[7, 5], [6, 5], [7, 5]], [1, 0, 0], valid_B=torch.tensor([True, True, False]))
    got = shift(KTAE(tf_weight=0), View(world))
    assert float(got[0, PROMPT]) == pytest.approx(reference.value(1, 0, 0, 1), abs=1e-7)
    assert not bool(got[2].any())


def test_the_end_of_an_answer_by_place_and_by_id() -> None:
    """1 ends only right answers: counted, it would say that stopping is right. A cut answer's last token is a token."""
    ids, rewards = [[8, 1], [7, 1], [8, 7], [8, 7]], [1.0, 1.0, 0.0, 0.0]
    cut = fixed(ids, rewards, truncated_B=torch.tensor([False, False, True, True]))
    ended = fixed(ids, rewards)
    counted, ignored, by_id = KTAE(end_token="counted"), KTAE(), KTAE(end_token="counted", ignored_ids=(1, 999_999))
    assert float(shift(counted, View(cut))[0, PROMPT + 1]) > 0.5
    for part in (ignored, by_id):
        got = shift(part, View(cut))
        assert not bool(got[:2, PROMPT + 1].any()) and bool((got[2:, PROMPT + 1] != 0).all())
    assert not bool(shift(ignored, View(ended))[:, PROMPT + 1].any())


def test_right_is_by_the_verifier_and_by_the_threshold() -> None:
    world = fixed([[7], [6]], [1.0, 0.5])
    assert not bool(shift(KTAE(end_token="counted"), View(world)).any()), "both above 0: one side"
    split = KTAE(end_token="counted", correct_above=0.5)
    assert float(shift(split, View(world))[0, PROMPT]) > 0
    shaped = replace(world, batch=replace(world.batch, rewards_B=-world.batch.rewards_B))
    assert torch.equal(shift(split, View(shaped)), shift(split, View(world)))


def test_multiplicative_never_turns_a_sign() -> None:
    part = KTAE(form="multiplicative", top=5.0)
    world = worlds()[1]
    scale = part.credit(View(world)).scale_BT
    assert bool((scale >= 0).all()) and bool((scale[world.batch.loss_mask_BT] == 0).any()), "some are cut off at 0"
    still = world.with_advantages(torch.zeros_like(world.advantages))
    assert torch.equal(part.credit(View(still)).scale_BT, world.batch.loss_mask_BT.float())


def test_takes_advantages_per_token() -> None:
    world = worlds()[1]
    wide = world.with_advantages(world.advantages[:, None] * world.batch.loss_mask_BT)
    for part in (KTAE(), KTAE(form="multiplicative")):
        assert torch.equal(part.credit(View(wide)).scale_BT, part.credit(View(world)).scale_BT)


def test_degenerate_batches() -> None:
    """One side only, one token, nothing at all: no value. No advantage does not matter to the additive form."""
    for name in ("all tokens masked", "one token", "no rows"):
        view = View(degenerate()[name])
        assert not bool(shift(KTAE(end_token="counted"), view).any()), name
        assert torch.equal(KTAE().credit(view).scale_BT, view.batch.loss_mask_BT.float())
    pair = View(degenerate()["one token a side"])
    assert float(shift(KTAE(), pair).abs().max()) == 0, "the end of sequence is the only token"
    still = degenerate()["no advantage"]
    assert torch.equal(shift(KTAE(), View(still)), shift(KTAE(), View(mixed())))


def test_answers() -> None:
    assert KTAE().additive() and not KTAE(form="multiplicative").additive()
    for part in (KTAE(), KTAE(form="multiplicative")):
        assert part.needs() == frozenset() and part.token_level() and not part.per_response() and not part.cut_dependent()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"form": "sum"}, "credit.KTAE.form: wanted additive or multiplicative, got 'sum'"),
        ({"fisher_weight": -1.0}, "credit.KTAE.fisher_weight: wanted at least 0"),
        ({"gain_weight": math.nan}, "credit.KTAE.gain_weight"),
        ({"fisher_weight": 0.0, "gain_weight": 0.0}, "credit.KTAE.fisher_weight: wanted above 0, or a gain_weight"),
        ({"tf_weight": -1.0}, "credit.KTAE.tf_weight"),
        ({"top": 0.0}, "credit.KTAE.top"),
        ({"end_token": "kept"}, "credit.KTAE.end_token"),
    ],
)
def test_refuses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KTAE(**fields)  # type: ignore[arg-type]
