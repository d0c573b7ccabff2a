from __future__ import annotations

import pytest
import torch

from delta_lightning.credit import Delta, Normalise, PositiveOnly, SequenceMean, Uniform
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, make_batch, mixed, scored
from support.reference_wrappers import tokens_of
from support.toy_credit import Listed, Shifting, of_tokens


@pytest.mark.parametrize("assigner", [Delta(), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner) -> None:
    part = PositiveOnly(assigner=assigner)
    check_credit(part)
    for seed in range(3):
        view = View(mixed(seed=seed))
        inner, got = assigner.credit(view), part.credit(view)
        assert got.scale_BT.dtype == inner.scale_BT.dtype
        chosen = [token.advantage > 0 for token in tokens_of(view.world)]
        scales = zip(of_tokens(inner.scale_BT, view), chosen, strict=True)
        assert of_tokens(got.scale_BT, view) == [scale if one else 1.0 for scale, one in scales]
        if inner.shift_BT is None:
            assert got.shift_BT is None
        else:
            assert got.shift_BT is not None
            shifts = zip(of_tokens(inner.shift_BT, view), chosen, strict=True)
            assert of_tokens(got.shift_BT, view) == [shift if one else 0.0 for shift, one in shifts]


def test_normalised_by_side_keeps_the_balance_of_sides() -> None:
    view = View(mixed())
    got = Normalise(assigner=PositiveOnly(), scope="side").credit(view).scale_BT
    for sign in (-1, 0, 1):
        side_BT = view.batch.loss_mask_BT & (view.world.advantages.sign() == sign)[:, None]
        assert float(got[side_BT].mean()) == pytest.approx(1, abs=1e-12)
    assert float(got[view.batch.loss_mask_BT & (view.world.advantages > 0)[:, None]].std()) > 0.01


def test_advantages_per_token_choose_token_by_token() -> None:
    view = View(scored(make_batch([3], rewards=[1], groups=[0], pad=0), [0.0]))
    view = View(view.world.with_advantages(torch.tensor([[0.0, 0.0, 1.0, 0.0, -1.0]])))
    got = PositiveOnly(assigner=Listed(scales=[2.0, 3.0, 4.0])).credit(view)
    assert of_tokens(got.scale_BT, view) == [2, 1, 1]


def test_the_level_is_that_of_the_assigner() -> None:
    assert not PositiveOnly(assigner=SequenceMean()).token_level()
    check_credit(PositiveOnly(assigner=SequenceMean()))


def test_degenerate_batches_are_uniform() -> None:
    for name in ("no advantage", "positive side only", "negative side only", "one token", "all tokens masked", "no rows"):
        world = degenerate()[name]
        assert torch.equal(PositiveOnly().credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name


def test_needs_advantages() -> None:
    class Early(View):
        @property
        def advantages(self) -> None:
            return None

    with pytest.raises(ValueError, match="before credit is assigned"):
        PositiveOnly(assigner=Uniform()).credit(Early(mixed()))
