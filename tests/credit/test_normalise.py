from __future__ import annotations

from typing import get_args

import pytest
import torch

from delta_lightning.credit import Delta, Mask, Normalise, SequenceMean, Uniform
from delta_lightning.credit.scopes import Scope
from delta_lightning.errors import ConfigError
from delta_lightning.interfaces import CreditAssigner
from delta_lightning.testing.laws import check_credit
from delta_lightning.testing.views import View
from delta_lightning.testing.worlds import degenerate, make_batch, mixed, scored
from support.reference_wrappers import members, normalised, tokens_of
from support.toy_credit import Listed, Shifting, of_tokens

SCOPES: list[Scope] = list(get_args(Scope))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("assigner", [Delta(normaliser="none"), Uniform(), Shifting()], ids=lambda part: type(part).__name__)
def test_equals_the_reference_and_obeys_the_laws(assigner: CreditAssigner, scope: Scope) -> None:
    part = Normalise(assigner=assigner, scope=scope)
    check_credit(part)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        for seed in range(3):
            view = View(mixed(dtype, seed=seed))
            inner, got, tokens = assigner.credit(view), part.credit(view), tokens_of(view.world)
            assert got.scale_BT.dtype == inner.scale_BT.dtype
            scales = of_tokens(inner.scale_BT, view)
            wanted = normalised(scales, tokens, scope)
            assert of_tokens(got.scale_BT, view) == pytest.approx(wanted, rel=tolerance)
            if inner.shift_BT is not None:
                assert got.shift_BT is not None
                factors = [value / scale for value, scale in zip(wanted, scales, strict=True)]
                shifts = [s * f for s, f in zip(of_tokens(inner.shift_BT, view), factors, strict=True)]
                assert of_tokens(got.shift_BT, view) == pytest.approx(shifts, rel=tolerance)


@pytest.mark.parametrize("scope", SCOPES)
def test_mean_is_one_in_every_unit(scope: Scope) -> None:
    view = View(mixed())
    scales = of_tokens(Normalise(assigner=Shifting(), scope=scope).credit(view).scale_BT, view)
    for unit in members(tokens_of(view.world), scope):
        assert sum(scales[i] for i in unit) / len(unit) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("scope", SCOPES)
def test_uniform_stays_uniform_bitwise_and_delta_is_normal_already(scope: Scope) -> None:
    view = View(mixed())
    assert torch.equal(Normalise(assigner=Uniform(), scope=scope).credit(view).scale_BT, Uniform().credit(view).scale_BT)
    torch.testing.assert_close(Normalise().credit(view).scale_BT, Delta().credit(view).scale_BT, rtol=0, atol=1e-12)
    raw = Normalise(assigner=Delta(normaliser="none"))
    torch.testing.assert_close(raw.credit(view).scale_BT, Delta().credit(view).scale_BT, rtol=0, atol=1e-12)


def test_a_scope_without_mass_gets_ones() -> None:
    """Two responses; the second has scale 0 throughout: by sequence it gets 1, in the batch it keeps 0."""
    view = View(scored(make_batch([2, 3], rewards=[1, 0], groups=[0, 0]), [1.0, -1.0]))
    part = Listed(scales=[1.0, 3.0, 0.0, 0.0, 0.0])
    assert of_tokens(Normalise(assigner=part, scope="sequence").credit(view).scale_BT, view) == [0.5, 1.5, 1, 1, 1]
    assert of_tokens(Normalise(assigner=part, scope="side").credit(view).scale_BT, view) == [0.5, 1.5, 1, 1, 1]
    assert of_tokens(Normalise(assigner=part).credit(view).scale_BT, view) == [1.25, 3.75, 0, 0, 0]
    assert of_tokens(Normalise(assigner=Listed(scales=[1e-13] * 5)).credit(view).scale_BT, view) == [1] * 5
    tiny = Listed(scales=[1e-11] * 5, dtype=torch.float32)
    assert of_tokens(Normalise(assigner=tiny).credit(view).scale_BT, view) == pytest.approx([1] * 5, rel=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_degenerate_batches_are_uniform_under_delta(scope: Scope) -> None:
    """Delta gives ones where a side is empty."""
    for name in ("no advantage", "positive side only", "negative side only", "one token", "all tokens masked", "no rows"):
        world = degenerate()[name]
        assert torch.equal(Normalise(scope=scope).credit(View(world)).scale_BT, world.batch.loss_mask_BT.double()), name


def test_advantages_per_token_make_sides_of_tokens() -> None:
    view = View(scored(make_batch([4], rewards=[1], groups=[0], pad=0), [0.0]))
    signs_BT = torch.tensor([[0.0, 0.0, 1.0, -1.0, 1.0, -1.0]])
    view = View(view.world.with_advantages(signs_BT))
    got = Normalise(assigner=Listed(scales=[1.0, 4.0, 3.0, 12.0]), scope="side").credit(view)
    assert of_tokens(got.scale_BT, view) == [0.5, 0.5, 1.5, 1.5]


def test_the_level_is_that_of_the_assigner() -> None:
    assert not Normalise(assigner=SequenceMean(), scope="side").token_level()
    check_credit(Normalise(assigner=SequenceMean(), scope="side"))
    assert Normalise(assigner=Mask()).token_level()


def test_refuses_a_scope_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"credit.Normalise.scope: wanted batch, side, group or sequence, got 'rank'"):
        Normalise(scope="rank")  # type: ignore[arg-type]
