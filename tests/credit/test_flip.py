from __future__ import annotations

from typing import get_args

import pytest
import torch

from delta_lightning.credit import Delta, Flip, Normalise, Uniform
from delta_lightning.credit.scopes import Scope
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, make_batch, mixed, scored
from support.reference_wrappers import flipped, members, tokens_of
from support.toy_credit import Listed, Shifting, of_tokens

SCOPES: list[Scope] = list(get_args(Scope))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("assigner", [Delta(), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner, scope: Scope) -> None:
    part = Flip(assigner=assigner, scope=scope)
    check_credit(part)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        view = View(mixed(dtype))
        inner, got, tokens = assigner.credit(view), part.credit(view), tokens_of(view.world)
        assert got.scale_BT.dtype == inner.scale_BT.dtype
        wanted = flipped(of_tokens(inner.scale_BT, view), tokens, scope)
        assert of_tokens(got.scale_BT, view) == pytest.approx(wanted, rel=tolerance, abs=tolerance)
        if inner.shift_BT is not None:
            assert got.shift_BT is not None
            shifts = of_tokens(inner.shift_BT, view)
            lifted = flipped([value + 100 for value in shifts], tokens, scope)  # far from the bound at 0
            assert of_tokens(got.shift_BT, view) == pytest.approx([value - 100 for value in lifted], abs=max(tolerance, 1e-9))


def test_mean_and_spread_of_each_side_stay_and_twice_is_nothing() -> None:
    view, scales = View(mixed()), {}
    for name, part in {"delta": Delta(), "flip": Flip(), "twice": Flip(assigner=Flip())}.items():
        scales[name] = of_tokens(part.credit(view).scale_BT, view)
    assert scales["twice"] == pytest.approx(scales["delta"], abs=1e-12)
    for unit in members(tokens_of(view.world), "side"):
        before, after = (torch.tensor([scales[name][i] for i in unit], dtype=torch.float64) for name in ("delta", "flip"))
        assert float(after.mean()) == pytest.approx(float(before.mean()), abs=1e-12)
        assert float(after.std(correction=0)) == pytest.approx(float(before.std(correction=0)), abs=1e-12)
        assert torch.equal(after.argsort(), before.argsort(descending=True)) or float(before.std()) < 1e-12


def test_on_each_side_it_is_low_plus_high_minus_the_coefficient_up_to_a_constant() -> None:
    view = View(mixed())
    raw = Delta(normaliser="none")
    mine, other = of_tokens(Flip(assigner=raw).credit(view).scale_BT, view), of_tokens(raw.credit(view).scale_BT, view)
    for unit in members(tokens_of(view.world), "side"):
        assert len({round(mine[i] - (0.8 + 1.2 - other[i]), 12) for i in unit}) == 1


def test_flipping_the_whole_batch_would_take_weight_from_the_sides() -> None:
    """The reason for the default scope: weight goes to tokens with A = 0."""
    view = View(mixed())
    idle_BT = view.batch.loss_mask_BT & (view.world.advantages == 0)[:, None]
    plain, side, batch = (float(part.credit(view).scale_BT[idle_BT].mean()) for part in (Delta(), Flip(), Flip(scope="batch")))
    assert side == pytest.approx(plain, abs=1e-12) and plain < 1 < batch


def test_scales_above_twice_the_mean_are_cut_off_at_0() -> None:
    view = View(scored(make_batch([4], rewards=[1], groups=[0]), [1.0]))
    part = Flip(assigner=Listed(scales=[0.0, 0.0, 0.0, 4.0]))
    assert of_tokens(part.credit(view).scale_BT, view) == [2, 2, 2, 0]
    assert of_tokens(Normalise(assigner=part).credit(view).scale_BT, view) == pytest.approx([4 / 3] * 3 + [0])


def test_degenerate_batches_are_uniform() -> None:
    for scope in SCOPES:
        for name in ("no advantage", "positive side only", "negative side only", "one token", "all tokens masked", "no rows"):
            world = degenerate()[name]
            assert torch.equal(Flip(scope=scope).credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name


def test_refuses_a_scope_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"credit.Flip.scope"):
        Flip(scope="rank")  # type: ignore[arg-type]
