from __future__ import annotations

from typing import get_args

import pytest
import torch

from delta_lightning.credit import Delta, SequenceMean, Shuffle, Uniform
from delta_lightning.credit.scopes import Scope
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import ThreadRank, View, run_ranks
from delta_lightning.testing.worlds import degenerate, mixed
from delta_lightning.types import Credit
from support.reference_wrappers import members, shuffled, tokens_of
from support.toy_credit import Shifting, of_tokens

SCOPES: list[Scope] = list(get_args(Scope))
ASSIGNERS = [Delta(), Uniform(), Shifting()]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("assigner", ASSIGNERS, ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner, scope: Scope) -> None:
    part = Shuffle(assigner=assigner, scope=scope)
    check_credit(part)
    for seed in range(3):
        view = View(mixed(seed=seed))
        inner, got = assigner.credit(view), part.credit(view)
        draws, tokens = of_tokens(view.uniform("credit.Shuffle 0"), view), tokens_of(view.world)
        assert of_tokens(got.scale_BT, view) == shuffled(of_tokens(inner.scale_BT, view), draws, tokens, scope)
        if inner.shift_BT is not None:
            assert got.shift_BT is not None
            assert of_tokens(got.shift_BT, view) == shuffled(of_tokens(inner.shift_BT, view), draws, tokens, scope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("assigner", [Delta(), Shifting()], ids=lambda part: type(part).__name__)
def test_marginals_are_kept_exactly(assigner: CreditAssigner, scope: Scope, dtype: torch.dtype) -> None:
    """Bit for bit the same pairs of scale and shift in every unit, in other places."""
    view = View(mixed(dtype))
    inner, got = assigner.credit(view), Shuffle(assigner=assigner, scope=scope).credit(view)
    assert got.scale_BT.dtype == inner.scale_BT.dtype == dtype
    before, after = pairs(inner, view), pairs(got, view)
    for unit in members(tokens_of(view.world), scope):
        assert sorted(before[i] for i in unit) == sorted(after[i] for i in unit)
    assert before != after


def pairs(credit: Credit, view: View) -> list[tuple[float, float]]:
    """Scale and shift of each token."""
    shift_BT = torch.zeros_like(credit.scale_BT) if credit.shift_BT is None else credit.shift_BT
    return list(zip(of_tokens(credit.scale_BT, view), of_tokens(shift_BT, view), strict=True))


@pytest.mark.parametrize("scope", SCOPES)
def test_the_same_permutation_on_any_ranks(scope: Scope) -> None:
    """Bit for bit, of float32 values that no sum has touched."""
    world = mixed(torch.float32)
    part = Shuffle(assigner=Shifting(), scope=scope)
    wanted_BT = part.credit(View(world)).scale_BT
    parts = [torch.tensor([11, 4, 0, 7, 9]), torch.tensor([], dtype=torch.int64), torch.tensor([3, 2, 10, 1, 8, 6, 5])]

    def work(rank: int, ranks: ThreadRank) -> torch.Tensor:
        return part.credit(View(world.rows(parts[rank]), ranks=ranks)).scale_BT

    assert torch.equal(torch.cat(run_ranks(3, work))[torch.cat(parts).argsort()], wanted_BT)


def test_wider_scopes_move_credit_across_narrower_ones() -> None:
    """Else `batch` would be no more of a control than `sequence`."""
    view = View(mixed())
    sums = {}
    for scope in SCOPES:
        scale_BT = Shuffle(scope=scope).credit(view).scale_BT
        sums[scope] = scale_BT.sum(1)
        assert float(scale_BT.sum()) == pytest.approx(float(view.batch.loss_mask_BT.sum()), rel=1e-12)
    torch.testing.assert_close(sums["sequence"], Delta().credit(view).scale_BT.sum(1), rtol=0, atol=1e-12)
    assert not torch.allclose(sums["side"], sums["sequence"]) and not torch.allclose(sums["batch"], sums["side"])


def test_draws_differ_by_number_and_repeat() -> None:
    view = View(mixed())
    one, again, other = (Shuffle(draw=draw).credit(view).scale_BT for draw in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_uniform_stays_uniform() -> None:
    for world in (mixed(), *degenerate().values()):
        for scope in SCOPES:
            got = Shuffle(assigner=Uniform(), scope=scope).credit(View(world)).scale_BT
            assert torch.equal(got, world.batch.loss_mask_BT.float())


def test_the_level_follows_from_the_scope() -> None:
    """Responses' weights become token credit when they are dealt out to other tokens."""
    assert Shuffle(assigner=SequenceMean()).token_level()
    assert not Shuffle(assigner=SequenceMean(), scope="sequence").token_level()
    check_credit(Shuffle(assigner=SequenceMean(), scope="sequence"))
    assert Shuffle(scope="sequence").token_level()


def test_refuses_a_scope_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"credit.Shuffle.scope"):
        Shuffle(scope="rank")  # type: ignore[arg-type]
